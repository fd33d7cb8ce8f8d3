import { PtpError } from '@ptp/protocol/errors';
import type { Manifest } from '@ptp/protocol/manifest';
import {
  type BlockCheck,
  checkedLength,
  type DraftEngine,
  type DraftOutput,
  type DraftSlot,
  type EngineInfo,
  type PrefixCacheUsage,
  type RunResult,
  type SequenceId,
  type TargetEngine,
  type TargetOutput,
  type TargetSlot,
} from './types.ts';
import { checkDraftSlots } from './validate-slots.ts';

/** Tokens of a cache that runs of our own have overwritten: what stood there from a row on. */
interface Lost {
  readonly from: number;
  readonly tokens: readonly number[];
}

/** One slot's draft while it grows. */
interface Draft {
  readonly slot: DraftSlot;
  readonly check: BlockCheck;
  /** Tokens of the block that the model says too. */
  readonly accepted: number;
  /** The row of the first drafted token. */
  readonly start: number;
  readonly tokens: number[];
  readonly confidences: number[];
}

/**
 * Drafts token by token with a whole language model, usually a smaller one than the target: the draft model of speculative decoding, coupled
 * to the target by the same uniforms. It takes a run of the model for each token where a PTP drafter takes one for all; but any
 * model with the same tokenizer will do. It checks blocks by its own picks, as if it were the target.
 */
export class AutoregressiveDraftEngine implements DraftEngine {
  readonly checksBlocks = true;
  readonly maxBranchLength = LONGEST;
  /** Not asked of engines that check. */
  readonly yieldCurve: readonly number[] = [];
  readonly yieldCurveAfterMiss: readonly number[] = [];
  readonly #model: TargetEngine;
  /** Rows of open sequences, and what of these no longer holds. */
  readonly #rows = new Map<SequenceId, number>();
  readonly #lost = new Map<SequenceId, Lost>();

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
    this.#lost.delete(sequence);
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
    const { outputs, runMicros } = await this.#model.run(slots.map((slot) => this.#reading(slot)));
    for (const slot of slots) this.#settle(slot);
    const drafts = slots.map((slot, i) => begun(slot, outputs[i] as TargetOutput));
    const growing = () => drafts.filter((draft) => draft !== undefined).filter((draft) => this.#isShort(draft));
    let micros = runMicros;
    for (let short = growing(); short.length > 0; short = growing()) micros += await this.#grow(short);
    return { outputs: drafts.map(answerOf), runMicros: micros };
  }

  #isShort({ check, tokens }: Draft): boolean {
    return tokens.length < checkedLength(check, this.info.uniformsPerPosition);
  }

  /** One token more for each. @returns microseconds inside the model */
  async #grow(drafts: readonly Draft[]): Promise<number> {
    const { outputs, runMicros } = await this.#model.run(drafts.map((draft) => this.#next(draft)));
    for (const [i, draft] of drafts.entries()) add(draft, outputs[i] as TargetOutput, 0);
    return runMicros;
  }

  /** The slot's tokens, after those before them that no longer hold; picks are asked for after each of the block's, and before it. */
  #reading({ sequence, at, tokens, sampling, check }: DraftSlot): TargetSlot {
    const lost = this.#lost.get(sequence);
    const again = lost && lost.from < at ? lost.tokens.slice(0, at - lost.from) : [];
    const slot = { sequence, at: at - again.length, tokens: [...again, ...tokens] };
    if (!check) return slot;
    const dimensions = this.info.uniformsPerPosition;
    const u = new Float32Array(slot.tokens.length * dimensions);
    const start = slot.tokens.length - 1 - check.block;
    u.set(check.u.subarray(0, (check.block + 1) * dimensions), start * dimensions);
    return { ...slot, sampling, u };
  }

  /** Notes what the cache holds after a slot's reading. */
  #settle({ sequence, at, tokens }: Pick<DraftSlot, 'sequence' | 'at' | 'tokens'>): void {
    if (this.#rows.has(sequence)) this.#rows.set(sequence, at + tokens.length);
    this.#lost.delete(sequence);
  }

  /** The newest drafted token, to be told the next one; it takes the place of the block's, where that was wrong. */
  #next({ slot, check, accepted, start, tokens }: Draft): TargetSlot {
    const { sequence, sampling } = slot;
    if (accepted < check.block) {
      this.#lost.set(sequence, { from: start, tokens: slot.tokens.slice(slot.tokens.length - check.block + accepted) });
    }
    const dimensions = this.info.uniformsPerPosition;
    const u = accepted + tokens.length;
    return {
      sequence,
      at: start + tokens.length - 1,
      tokens: tokens.slice(-1),
      sampling,
      u: check.u.slice(u * dimensions, (u + 1) * dimensions),
    };
  }
}

/** Longest draft; each token costs a run, so that the gateway will ask for far fewer. */
const LONGEST = 64;

/** A draft whose first token is what the model says where it does not say what the block does, or after the block. */
function begun(slot: DraftSlot, output: TargetOutput): Draft | undefined {
  const { at, tokens, check } = slot;
  if (!check) return undefined;
  const block = tokens.slice(tokens.length - check.block);
  const before = output.picks.length - 1 - check.block;
  const wrong = block.findIndex((token, k) => token !== output.picks[before + k]);
  const accepted = wrong < 0 ? check.block : wrong;
  const start = at + tokens.length - check.block + accepted;
  const draft: Draft = { slot, check, accepted, start, tokens: [], confidences: [] };
  add(draft, output, before + accepted);
  return draft;
}

/** Adds a pick of the model, with the probability that it had before temperature, top-k and top-p. */
function add({ tokens, confidences }: Draft, { picks, logProbabilities }: TargetOutput, index: number): void {
  tokens.push(picks[index] as number);
  confidences.push(Math.exp(logProbabilities[index] as number));
}

function answerOf(draft: Draft | undefined): DraftOutput {
  if (!draft) return { branches: [] };
  const { accepted, tokens, confidences } = draft;
  return { branches: [{ accepted, tokens: Int32Array.from(tokens), confidences: Float32Array.from(confidences) }] };
}

/**
 * Refuses a draft model that cannot draft for a pair's target: it has to have the same tokens, picked in the same way.
 *
 * @throws PtpError `failed_precondition` naming `setting` and what differs
 */
export function checkDraftModel(draft: Manifest, pair: Manifest, setting: string): void {
  const identity = ({ tokenizer, sizes, pick, end_of_text }: Manifest) => ({
    'the SHA-256 of `tokenizer.json`': tokenizer.sha256,
    'a vocabulary': sizes.vocab,
    '`pick`': pick,
    '`end_of_text`': end_of_text,
  });
  const wanted = Object.entries(identity(pair));
  const given = Object.values(identity(draft));
  for (const [i, [what, value]] of wanted.entries()) {
    if (value === given[i]) continue;
    const message = `${setting}: ${what} of ${draft.id} must be ${value}, as ${pair.id} has it, got ${given[i]}`;
    throw new PtpError('failed_precondition', message, { field: setting });
  }
}
