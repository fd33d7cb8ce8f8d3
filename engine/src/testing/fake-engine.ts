import { setTimeout as sleep } from 'node:timers/promises';
import { PtpError } from '@ptp/protocol/errors';
import type { SamplingParams } from '@ptp/protocol/sampling-params';
import { EngineBase } from '../engine-base.ts';
import { type UniformSource, uniformsAt } from '../sampling/uniforms.ts';
import type {
  BlockCheck,
  BranchRequest,
  DraftEngine,
  DraftOutput,
  DraftSlot,
  Engine,
  PrefixCacheUsage,
  RunResult,
  SequenceId,
  TargetEngine,
  TargetOutput,
  TargetSlot,
} from '../types.ts';
import { checkDraftSlots, checkEmpty, checkTargetSlots } from '../validate-slots.ts';
import { type FakeLanguage, mix, nextToken, positions, START, words } from './fake-language.ts';

export interface FakeTargetOptions extends FakeLanguage {
  /** Duration of a run in milliseconds. Default: 0. */
  readonly latencyMs?: number;
}

export interface FakeDraftOptions extends FakeTargetOptions {
  /** Probability in [0, 1] that a drafted token equals the target's token. Default: 0.8. */
  readonly accuracy?: number;
  /** Maximum length of a branch in tokens. Default: 8. */
  readonly maxBranchLength?: number;
  /** True to check blocks as the target would. Default: false. */
  readonly checks?: boolean;
}

const BYTES_PER_TOKEN = 4;

/** Engine in which a cache row is the hash of all tokens up to it. */
abstract class FakeEngine extends EngineBase implements Engine {
  /** Number of finished runs. */
  runs = 0;
  readonly #language: FakeLanguage;
  readonly #latencyMs: number;
  readonly #hashes = new Map<SequenceId, number[]>();
  #queue: Promise<unknown> = Promise.resolve();

  constructor(options: FakeTargetOptions) {
    const { vocabulary = 256, contextLength = 1024, uniformsPerPosition = 1, maxSlots = 4, latencyMs = 0 } = options;
    const maxSequences = Number.POSITIVE_INFINITY;
    super({ vocabulary, contextLength, uniformsPerPosition, maxSlots, maxSequences, bytesPerToken: BYTES_PER_TOKEN });
    this.#language = options;
    this.#latencyMs = latencyMs;
  }

  /** Returns 0, because this engine does not keep closed sequences. */
  async reusePrefix(sequence: SequenceId): Promise<number> {
    checkEmpty(sequence, this.rowsOf);
    return 0;
  }

  prefixCache(): PrefixCacheUsage {
    return { sequences: 0, bytes: 0, lookups: 0, hits: 0, reusedTokens: 0 };
  }

  protected override release(sequence: SequenceId): void {
    this.#hashes.delete(sequence);
  }

  async dispose(): Promise<void> {
    this.end(new PtpError('unavailable', 'the engine has been stopped'));
  }

  /** Simulates the crash of the engine. */
  override die(error: PtpError = new PtpError('unavailable', 'the engine has failed')): void {
    super.die(error);
  }

  /** Writes the slot's rows. @returns the hash before row 0, then the hash of each row */
  protected write({ sequence, at, tokens }: TargetSlot | DraftSlot): number[] {
    const hashes = (this.#hashes.get(sequence) ?? []).slice(0, at);
    for (const token of tokens) hashes.push(mix(hashes.at(-1) ?? START, token));
    this.#hashes.set(sequence, hashes);
    this.recordRows(sequence, hashes.length);
    return [START, ...hashes];
  }

  /** Returns the uniforms of each of `count` tokens from sequence index `index` on. */
  protected uniforms(source: UniformSource, index: number, count: number): number[][] {
    const { uniformsPerPosition } = this.info;
    return positions(uniformsAt(source, index, count, uniformsPerPosition), uniformsPerPosition);
  }

  protected next(hash: number, index: number, sampling: SamplingParams, u: ArrayLike<number>): number {
    return nextToken(hash, index, sampling, u, this.#language);
  }

  /** Returns a promise that resolves `latencyMs` after all earlier runs have finished. */
  protected answer<Output>(outputs: Output[]): Promise<RunResult<Output>> {
    const { id, answer } = this.begin<RunResult<Output>>();
    this.#queue = this.#queue.then(async () => {
      const started = performance.now();
      if (this.#latencyMs > 0) await sleep(this.#latencyMs);
      this.runs++;
      this.settle(id, { outputs, runMicros: Math.round((performance.now() - started) * 1000) });
    });
    return answer;
  }
}

/** Deterministic target for tests. Without latency by default. */
export class FakeTargetEngine extends FakeEngine implements TargetEngine {
  constructor(options: FakeTargetOptions = {}) {
    super(options);
  }

  async run(slots: readonly TargetSlot[]): Promise<RunResult<TargetOutput>> {
    checkTargetSlots(slots, this.info, this.rowsOf);
    const outputs = slots.map((slot) => {
      const hashes = this.write(slot);
      const { at, tokens, sampling, uniforms } = slot;
      if (!sampling || !uniforms) return { picks: new Int32Array(), logProbabilities: new Float32Array() };
      const picks = Int32Array.from(this.uniforms(uniforms, at + 1, tokens.length), (values, i) => {
        const index = at + i + 1;
        return this.next(hashes[index] as number, index, sampling, values);
      });
      return { picks, logProbabilities: Float32Array.from(picks, (token) => -token / 256) };
    });
    return this.answer(outputs);
  }
}

/**
 * Drafter that drafts FakeTargetEngine's tokens with a given probability, which is also the confidence that it reports.
 */
export class FakeDraftEngine extends FakeEngine implements DraftEngine {
  readonly checksBlocks: boolean;
  readonly maxBranchLength: number;
  readonly yieldCurve: readonly number[];
  readonly yieldCurveAfterMiss: readonly number[];
  readonly #accuracy: number;

  constructor(options: FakeDraftOptions = {}) {
    super(options);
    const { accuracy = 0.8, maxBranchLength = 8, checks = false } = options;
    this.checksBlocks = checks;
    this.maxBranchLength = maxBranchLength;
    this.#accuracy = accuracy;
    const gains = Array.from({ length: maxBranchLength }, (_, i) => accuracy ** (i + 1));
    this.yieldCurve = [0, ...gains.map((_, i) => gains.slice(0, i + 1).reduce((sum, gain) => sum + gain, 0))];
    this.yieldCurveAfterMiss = this.yieldCurve;
  }

  async run(slots: readonly DraftSlot[]): Promise<RunResult<DraftOutput>> {
    checkDraftSlots(slots, this, this.rowsOf);
    const outputs = slots.map((slot) => {
      const hashes = this.write(slot);
      if (!slot.check) return { branches: slot.branches.map((branch) => this.#drafted(slot, branch, hashes)) };
      const { accepted, ...branch } = this.#checked(slot, slot.check, hashes);
      return { branches: [{ accepted, ...this.#drafted(slot, branch, hashes, true) }] };
    });
    return this.answer(outputs);
  }

  /** Finds the first token of the block that differs from the target's token. The branch starts there. */
  #checked(slot: DraftSlot, { block, length }: BlockCheck, hashes: readonly number[]) {
    const { at, tokens, sampling, uniforms } = slot;
    const start = at + tokens.length - block;
    const picks = this.uniforms(uniforms, start, block).map((values, k) =>
      this.next(hashes[start + k] as number, start + k, sampling, values),
    );
    const wrong = picks.findIndex((pick, k) => pick !== tokens[tokens.length - block + k]);
    const accepted = wrong < 0 ? block : wrong;
    return { accepted, visible: start + accepted, length };
  }

  /** @param firstIsRight true after a check, where the first token is the target's own token */
  #drafted({ sampling, uniforms }: DraftSlot, branch: BranchRequest, hashes: readonly number[], firstIsRight = false) {
    const { visible, length, excluded } = branch;
    let hash = hashes[visible] as number;
    const tokens = Int32Array.from(this.uniforms(uniforms, visible, length), (values, i) => {
      const right = this.next(hash, visible + i, sampling, values);
      const wrong = 1 + (right % (this.info.vocabulary - 1));
      const luck = words(values).reduce(mix, mix(hash, 0x5eed));
      // If the first draw repeats the excluded token, draw again.
      const draw = i === 0 && excluded === wrong ? mix(luck, 0x5eed) : luck;
      const token = (firstIsRight && i === 0) || draw / 2 ** 32 < this.#accuracy ? right : wrong;
      hash = mix(hash, token);
      return token;
    });
    const confidences = new Float32Array(tokens.length).fill(this.#accuracy);
    if (firstIsRight) confidences[0] = 1;
    return { tokens, confidences };
  }
}
