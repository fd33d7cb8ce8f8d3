import { PtpError, unusable } from '@ptp/protocol/errors';
import type { ControlledEvaluateInputItem, LlamaContextSequence, Token } from 'node-llama-cpp';
import { EngineBase } from '../engine-base.ts';
import type {
  DraftEngine,
  EngineOptions,
  PrefixCacheUsage,
  RunResult,
  SequenceId,
  TargetEngine,
  TargetOutput,
  TargetSlot,
} from '../types.ts';
import { checkEmpty, checkTargetSlots } from '../validate-slots.ts';
import { candidateRequest, evaluateInput, everything, type Position, readPosition } from './candidates.ts';
import { type LoadedGguf, loadGguf } from './model.ts';
import { pickSuccessors } from './picks.ts';
import { SequenceSlots } from './sequence-slots.ts';

/**
 * Opens a GGUF file in llama.cpp, through node-llama-cpp.
 *
 * @param options options of the engine, whose `dir` is the path of the file
 * @throws PtpError `failed_precondition` if node-llama-cpp or the file is missing or cannot be loaded
 */
export async function openTargetEngine(options: EngineOptions): Promise<TargetEngine> {
  return new LlamaCppEngine(await loadGguf(options), options.prefixCacheBytes ?? 0);
}

/** Always throws, because a GGUF file has no drafter. @throws PtpError `failed_precondition` */
export async function openDraftEngine({ dir }: EngineOptions): Promise<DraftEngine> {
  throw unusable(dir, 'is a GGUF file, which has no drafter: set PTP_DRAFT_MODEL to a smaller model');
}

/**
 * Target that picks from llama.cpp's logits. It executes one run at a time, with a single decode call unless the run
 * exceeds llama.cpp's batch size.
 */
export class LlamaCppEngine extends EngineBase implements TargetEngine {
  readonly #gguf: LoadedGguf;
  readonly #slots: SequenceSlots;
  #counts = { lookups: 0, hits: 0, reusedTokens: 0 };
  #queue: Promise<unknown> = Promise.resolve();

  constructor(gguf: LoadedGguf, prefixCacheBytes: number) {
    super(gguf.info);
    this.#gguf = gguf;
    const { context } = gguf;
    const sequences = Array.from({ length: context.totalSequences }, () => context.getSequence());
    this.#slots = new SequenceSlots(sequences, Math.floor(prefixCacheBytes / gguf.info.bytesPerToken));
    context.onDispose.createListener(() => this.die(new PtpError('unavailable', 'the engine has stopped')));
  }

  async reusePrefix(sequence: SequenceId, tokens: readonly number[]): Promise<number> {
    checkEmpty(sequence, this.rowsOf);
    // Slots of sequences that were closed earlier become free first.
    await this.#queue;
    if (this.rowsOf(sequence) === undefined) return 0;
    const rows = this.#slots.reuse(sequence, tokens);
    const { lookups, hits, reusedTokens } = this.#counts;
    this.#counts = { lookups: lookups + 1, hits: hits + Number(rows > 0), reusedTokens: reusedTokens + rows };
    this.recordRows(sequence, rows);
    return rows;
  }

  /** Frees the sequence's slot after the run in flight. */
  protected override release(sequence: SequenceId): void {
    this.#queue = this.#queue.then(() => this.#slots.close(sequence));
  }

  prefixCache(): PrefixCacheUsage {
    const { sequences, rows } = this.#slots.parked();
    return { sequences, bytes: rows * this.info.bytesPerToken, ...this.#counts };
  }

  async run(slots: readonly TargetSlot[]): Promise<RunResult<TargetOutput>> {
    checkTargetSlots(slots, this.info, this.rowsOf);
    const { id, answer } = this.begin<RunResult<TargetOutput>>();
    this.recordRun(slots);
    this.#queue = this.#queue.then(() => this.#serve(id, slots));
    return answer;
  }

  async dispose(): Promise<void> {
    this.end(new PtpError('unavailable', 'the engine has been stopped'));
    await this.#queue;
    const { context, model, llama } = this.#gguf;
    await context.dispose();
    await model.dispose();
    await llama.dispose();
  }

  async #serve(id: number, slots: readonly TargetSlot[]): Promise<void> {
    if (this.dead) return;
    const started = performance.now();
    try {
      const outputs = await this.#outputs(slots);
      this.settle(id, { outputs, runMicros: Math.round((performance.now() - started) * 1000) });
    } catch (cause) {
      this.recordFailure(slots);
      const error = new PtpError('internal', 'a model run has failed', { cause });
      this.settle(id, cause instanceof PtpError ? cause : error);
    }
  }

  /**
   * Runs a slot again with all logits if the candidates do not decide its picks. The second run writes the same rows
   * anew.
   */
  async #outputs(slots: readonly TargetSlot[]): Promise<TargetOutput[]> {
    const outputs = await this.#evaluate(slots, false);
    const undecided = slots.filter((_, i) => outputs[i] === undefined);
    if (undecided.length === 0) return outputs as TargetOutput[];
    const decided = await this.#evaluate(undecided, true);
    if (decided.includes(undefined)) throw new PtpError('internal', 'no token may be picked');
    return outputs.map((output) => output ?? (decided.shift() as TargetOutput));
  }

  async #evaluate(slots: readonly TargetSlot[], all: boolean): Promise<(TargetOutput | undefined)[]> {
    const sequences = slots.map(({ sequence }) => this.#slots.slotOf(sequence));
    for (const [i, { at }] of slots.entries()) await rollBack(sequences[i] as LlamaContextSequence, at);
    // Evaluations that begin in the same turn of the event loop share a batch.
    const evaluations = await Promise.allSettled(
      slots.map(async (slot, i) => {
        const requests = this.#requests(slot, all);
        const input: ControlledEvaluateInputItem[] = slot.tokens.map((token, k) => {
          const request = requests[k];
          return request ? evaluateInput(token, request, this.info.vocabulary) : (token as Token);
        });
        const results = (await sequences[i]?.controlledEvaluate(input)) ?? [];
        return requests.map((request, k): Position => readPosition(results[k], request, this.info.vocabulary));
      }),
    );
    const evaluated = evaluations.map((evaluation) => {
      if (evaluation.status === 'rejected') throw evaluation.reason;
      return evaluation.value;
    });
    return slots.map((slot, i) => pickSuccessors(slot, evaluated[i] ?? [], this.info));
  }

  /** Returns the requests for logits: one for each token of a slot that picks, otherwise none. */
  #requests({ sampling, tokens, adjust, topCount = 0, roughScores: rough = false }: TargetSlot, all: boolean) {
    if (!sampling) return [];
    const { vocabulary } = this.info;
    if (all) return tokens.map(() => everything(vocabulary));
    return tokens.map((_, k) => candidateRequest({ sampling, adjustment: adjust?.[k], topCount, rough }, vocabulary));
  }
}

/** Erases the rows from `at` on. @throws PtpError `internal` if llama.cpp has to erase earlier rows too */
async function rollBack(sequence: LlamaContextSequence, at: number): Promise<void> {
  if (sequence.nextTokenIndex > at) {
    await sequence.eraseContextTokenRanges([{ start: at, end: sequence.nextTokenIndex }]);
  }
  if (sequence.nextTokenIndex === at) return;
  throw new PtpError('internal', `llama.cpp kept ${sequence.nextTokenIndex} rows instead of ${at}`);
}
