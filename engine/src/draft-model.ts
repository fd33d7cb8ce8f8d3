import type {
  BlockCheck,
  DraftEngine,
  DraftOutput,
  DraftSlot,
  EngineInfo,
  PrefixCacheUsage,
  RunResult,
  SequenceId,
  TargetEngine,
  TargetOutput,
  TargetSlot,
} from './types.ts';
import { checkDraftSlots } from './validate-slots.ts';

/** Rows of a block that drafting overwrote, from row `from` on, and the block's tokens in these rows. */
interface Overwritten {
  readonly from: number;
  readonly tokens: readonly number[];
}

/** Draft of one slot while it grows. */
interface Draft {
  readonly slot: DraftSlot;
  readonly check: BlockCheck;
  /** Number of tokens at the start of the block that the model picks too. */
  readonly accepted: number;
  /** Row of the first drafted token. */
  readonly start: number;
  readonly tokens: number[];
  readonly confidences: number[];
}

/** Maximum number of tokens in a draft. Each token costs a run, so gateways request far fewer. */
const MAX_DRAFT = 64;

/**
 * Drafts token by token with a whole language model, usually a smaller one than the target: the draft model of
 * speculative decoding, coupled to the target by the same uniforms. Any model with the target's tokenizer works, but it
 * needs one run for each token, whereas a PTP drafter needs a single run for all of them. It checks blocks with its own
 * picks, as if it were the target.
 */
export class AutoregressiveDraftEngine implements DraftEngine {
  readonly checksBlocks = true;
  readonly maxBranchLength = MAX_DRAFT;
  /** Empty, because gateways do not use the yield curve of an engine that checks blocks. */
  readonly yieldCurve: readonly number[] = [];
  readonly yieldCurveAfterMiss: readonly number[] = [];
  readonly #model: TargetEngine;
  /** Number of rows of each open sequence, as the caller knows it. */
  readonly #rows = new Map<SequenceId, number>();
  readonly #overwritten = new Map<SequenceId, Overwritten>();

  constructor(model: TargetEngine) {
    this.#model = model;
  }

  get info(): EngineInfo {
    return this.#model.info;
  }

  get died(): Promise<Error> {
    return this.#model.died;
  }

  open(): SequenceId {
    const sequence = this.#model.open();
    this.#rows.set(sequence, 0);
    return sequence;
  }

  async reusePrefix(sequence: SequenceId, tokens: readonly number[]): Promise<number> {
    const rows = await this.#model.reusePrefix(sequence, tokens);
    if (this.#rows.has(sequence)) this.#rows.set(sequence, rows);
    return rows;
  }

  close(sequence: SequenceId): void {
    this.#rows.delete(sequence);
    this.#overwritten.delete(sequence);
    this.#model.close(sequence);
  }

  usage(): { sequences: number; cacheBytes: number } {
    return this.#model.usage();
  }

  prefixCache(): PrefixCacheUsage {
    return this.#model.prefixCache();
  }

  dispose(): Promise<void> {
    return this.#model.dispose();
  }

  async run(slots: readonly DraftSlot[]): Promise<RunResult<DraftOutput>> {
    checkDraftSlots(slots, this, (sequence) => this.#rows.get(sequence));
    const { outputs, runMicros } = await this.#model.run(slots.map((slot) => this.#contextSlot(slot)));
    for (const slot of slots) this.#settle(slot);
    const drafts = slots.map((slot, i) => startDraft(slot, outputs[i] as TargetOutput));
    const unfinished = () => drafts.filter((draft) => draft !== undefined).filter(isUnfinished);
    let micros = runMicros;
    for (let growing = unfinished(); growing.length > 0; growing = unfinished()) micros += await this.#grow(growing);
    return { outputs: drafts.map(draftOutput), runMicros: micros };
  }

  /** Adds one token to each draft. @returns duration of the model's run in microseconds */
  async #grow(drafts: readonly Draft[]): Promise<number> {
    const { outputs, runMicros } = await this.#model.run(drafts.map((draft) => this.#nextSlot(draft)));
    for (const [i, draft] of drafts.entries()) addPick(draft, outputs[i] as TargetOutput, 0);
    return runMicros;
  }

  /**
   * Returns the slot that runs the new tokens, preceded by the tokens whose rows were overwritten. The model picks
   * before and after each token of the block.
   */
  #contextSlot({ sequence, at, tokens, sampling, uniforms, check }: DraftSlot): TargetSlot {
    const lost = this.#overwritten.get(sequence);
    const again = lost && lost.from < at ? lost.tokens.slice(0, at - lost.from) : [];
    const slot = { sequence, at: at - again.length, tokens: [...again, ...tokens], roughScores: true };
    return check ? { ...slot, sampling, uniforms } : slot;
  }

  /** Records that the cache holds the slot's tokens. */
  #settle({ sequence, at, tokens }: DraftSlot): void {
    if (this.#rows.has(sequence)) this.#rows.set(sequence, at + tokens.length);
    this.#overwritten.delete(sequence);
  }

  /**
   * Returns the slot that runs the newest drafted token to get the next one. The run overwrites the rows of the block's
   * wrong tokens.
   */
  #nextSlot({ slot, check, accepted, start, tokens }: Draft): TargetSlot {
    const { sequence, sampling, uniforms } = slot;
    if (accepted < check.block) {
      const wrong = slot.tokens.slice(slot.tokens.length - check.block + accepted);
      this.#overwritten.set(sequence, { from: start, tokens: wrong });
    }
    const at = start + tokens.length - 1;
    return { sequence, at, tokens: tokens.slice(-1), sampling, uniforms, roughScores: true };
  }
}

/** Starts a draft with the model's pick at the block's first wrong token, or after the block. */
function startDraft(slot: DraftSlot, output: TargetOutput): Draft | undefined {
  const { at, tokens, check } = slot;
  if (!check) return undefined;
  const block = tokens.slice(tokens.length - check.block);
  const before = output.picks.length - 1 - check.block;
  const wrong = block.findIndex((token, k) => token !== output.picks[before + k]);
  const accepted = wrong < 0 ? check.block : wrong;
  const start = at + tokens.length - check.block + accepted;
  const draft: Draft = { slot, check, accepted, start, tokens: [], confidences: [] };
  addPick(draft, output, before + accepted);
  return draft;
}

function isUnfinished({ check, tokens }: Draft): boolean {
  return tokens.length < check.length;
}

/** Adds a pick of the model to the draft. Its confidence is its probability before temperature, top-k and top-p. */
function addPick({ tokens, confidences }: Draft, { picks, logProbabilities }: TargetOutput, index: number): void {
  tokens.push(picks[index] as number);
  confidences.push(Math.exp(logProbabilities[index] as number));
}

function draftOutput(draft: Draft | undefined): DraftOutput {
  if (!draft) return { branches: [] };
  const { accepted, tokens, confidences } = draft;
  return { branches: [{ accepted, tokens: Int32Array.from(tokens), confidences: Float32Array.from(confidences) }] };
}
