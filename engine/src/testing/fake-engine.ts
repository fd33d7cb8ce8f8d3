import { PtpError } from '@ptp/protocol/errors';
import type { SamplingParams } from '@ptp/protocol/sampling-params';
import type {
  BlockCheck,
  BranchRequest,
  DraftEngine,
  DraftOutput,
  DraftSlot,
  Engine,
  EngineInfo,
  PrefixCacheUsage,
  RunResult,
  SequenceId,
  TargetEngine,
  TargetOutput,
  TargetSlot,
} from '../types.ts';
import { checkDraftSlots, checkEmpty, checkTargetSlots } from '../validate-slots.ts';

/** What the fakes say; give target and drafter the same language to make a pair. */
export interface FakeLanguage {
  /** 256 by default. */
  readonly vocabulary?: number;
  /** 1024 by default. */
  readonly contextLength?: number;
  /** 4 by default. */
  readonly maxSlots?: number;
  /** D, 1 by default; what is said depends on all of them. */
  readonly uniformsPerPosition?: number;
  /** Token 0 is said at this index of a sequence, and nowhere else; never by default. */
  readonly endAt?: number;
}

export interface FakeTargetOptions extends FakeLanguage {
  /** Milliseconds that a run takes, 0 by default. */
  readonly latencyMs?: number;
}

export interface FakeDraftOptions extends FakeTargetOptions {
  /** Chance in [0, 1] that a drafted token is what the target says after the same tokens; 0.8 by default. */
  readonly accuracy?: number;
  /** 8 by default. */
  readonly maxBranchLength?: number;
  /** Whether it checks blocks, as the target would; it doesn't by default. */
  readonly checks?: boolean;
}

/**
 * The token that the fake target says after `tokens`: a hash of all of them, u [D] and the sampling parameters (of u only
 * if temperature > 0). So a caller that leaves a token out of the cache, or gives the wrong u, gets another text.
 */
export function fakeNext(
  tokens: readonly number[],
  sampling: SamplingParams,
  u: ArrayLike<number>,
  language: FakeLanguage = {},
): number {
  return say(tokens.reduce(mix, START), tokens.length, sampling, u, language);
}

/** The fake target's continuation of `prompt`, token by token: u [count * D], the i-th new token's from i * D on. */
export function fakeText(
  prompt: readonly number[],
  sampling: SamplingParams,
  u: ArrayLike<number>,
  language: FakeLanguage = {},
): number[] {
  const tokens = [...prompt];
  for (const values of positions(u, language.uniformsPerPosition ?? 1)) {
    tokens.push(fakeNext(tokens, sampling, values, language));
  }
  return tokens.slice(prompt.length);
}

/** u [count * D], position by position. */
function positions(u: ArrayLike<number>, dimensions: number): number[][] {
  const values = Array.from(u);
  return Array.from({ length: values.length / dimensions }, (_, i) =>
    values.slice(i * dimensions, (i + 1) * dimensions),
  );
}

const START = 0x811c9dc5;

/** One step of a hash over 32-bit words (multiply and xor-shift, as in MurmurHash3's finaliser). */
function mix(state: number, word: number): number {
  let h = Math.imul(state ^ word, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function say(
  state: number,
  index: number,
  sampling: SamplingParams,
  u: ArrayLike<number>,
  language: FakeLanguage,
): number {
  if (index === language.endAt) return 0;
  const { temperature, topK, topP } = sampling;
  const parts = temperature === 0 ? [0] : [temperature * 1e6, topK, topP * 1e6, ...words(u)];
  const hash = parts.map(Math.round).reduce(mix, state);
  return 1 + (hash % ((language.vocabulary ?? 256) - 1));
}

/** Uniforms as the integers that they are multiples of 2^-24 by. */
function words(u: ArrayLike<number>): number[] {
  return Array.from(u, (value) => Math.round(value * 2 ** 24));
}

/** A sequence's rows: per row, the hash of all tokens up to it. */
class FakeSequences implements Engine {
  readonly info: EngineInfo;
  /** Runs answered so far. */
  runs = 0;
  private readonly language: FakeLanguage;
  private readonly latencyMs: number;
  private readonly sequences = new Map<SequenceId, number[]>();
  private readonly waiting = new Set<(error: PtpError) => void>();
  readonly died: Promise<Error>;
  private readonly tellDeath: (reason: Error) => void;
  private dead: PtpError | undefined;
  private nextSequence = 1;
  private last: Promise<unknown> = Promise.resolve();

  constructor(options: FakeTargetOptions) {
    const { promise, resolve } = Promise.withResolvers<Error>();
    this.died = promise;
    this.tellDeath = resolve;
    this.language = options;
    this.latencyMs = options.latencyMs ?? 0;
    this.info = {
      vocabulary: options.vocabulary ?? 256,
      contextLength: options.contextLength ?? 1024,
      uniformsPerPosition: options.uniformsPerPosition ?? 1,
      maxSlots: options.maxSlots ?? 4,
      bytesPerToken: 4,
    };
  }

  open(): SequenceId {
    if (this.dead) throw this.dead;
    const sequence = this.nextSequence++;
    this.sequences.set(sequence, []);
    return sequence;
  }

  /** It keeps nothing of closed sequences. */
  async reusePrefix(sequence: SequenceId): Promise<number> {
    if (this.dead) throw this.dead;
    checkEmpty(sequence, this.rowsOf);
    return 0;
  }

  prefixCache(): PrefixCacheUsage {
    return { sequences: 0, bytes: 0, lookups: 0, hits: 0, reusedTokens: 0 };
  }

  close(sequence: SequenceId): void {
    this.sequences.delete(sequence);
  }

  usage(): { sequences: number; cacheBytes: number } {
    let rows = 0;
    for (const states of this.sequences.values()) rows += states.length;
    return { sequences: this.sequences.size, cacheBytes: rows * this.info.bytesPerToken };
  }

  async dispose(): Promise<void> {
    this.dead ??= new PtpError('unavailable', 'the engine has been stopped');
    this.die();
  }

  /** Test hook: the engine dies as a crashed worker does; all runs from now on fail with `unavailable`. */
  die(error: PtpError = new PtpError('unavailable', 'the engine has failed')): void {
    this.dead ??= error;
    this.tellDeath(this.dead);
    for (const reject of this.waiting) reject(this.dead);
    this.waiting.clear();
    this.sequences.clear();
  }

  protected rowsOf = (sequence: SequenceId): number | undefined => this.sequences.get(sequence)?.length;

  /** Writes the slot's rows and returns the states before its first row and after each. */
  protected write({ sequence, at, tokens }: TargetSlot | DraftSlot): number[] {
    const states = this.sequences.get(sequence) ?? [];
    states.length = at;
    for (const token of tokens) states.push(mix(states.at(-1) ?? START, token));
    return [START, ...states];
  }

  protected say(state: number, index: number, sampling: SamplingParams, u: ArrayLike<number>): number {
    return say(state, index, sampling, u, this.language);
  }

  /** Runs one after another, each `latencyMs` long. */
  protected async answer<Output>(outputs: Output[]): Promise<RunResult<Output>> {
    const before = this.last;
    const answered = new Promise<RunResult<Output>>((resolve, reject) => {
      if (this.dead) throw this.dead;
      this.waiting.add(reject);
      let began = 0;
      before
        .catch(() => {})
        .then(() => {
          began = performance.now();
          return this.latencyMs > 0 ? new Promise((done) => setTimeout(done, this.latencyMs)) : undefined;
        })
        .then(() => {
          this.waiting.delete(reject);
          this.runs++;
          resolve({ outputs, runMicros: Math.round((performance.now() - began) * 1000) });
        });
    });
    this.last = answered;
    return answered;
  }
}

/** A target for tests in which a real one would hide what is tested. Deterministic; instant unless told otherwise. */
export class FakeTargetEngine extends FakeSequences implements TargetEngine {
  constructor(options: FakeTargetOptions = {}) {
    super(options);
  }

  async run(slots: readonly TargetSlot[]): Promise<RunResult<TargetOutput>> {
    checkTargetSlots(slots, this.info, this.rowsOf);
    const outputs = slots.map((slot) => {
      const states = this.write(slot);
      const { sampling, u } = slot;
      if (!sampling) return { picks: new Int32Array(), logProbabilities: new Float32Array() };
      const picks = Int32Array.from(positions(u ?? [], this.info.uniformsPerPosition), (values, i) => {
        const index = slot.at + i + 1;
        return this.say(states[index] as number, index, sampling, values);
      });
      return { picks, logProbabilities: Float32Array.from(picks, (token) => -token / 256) };
    });
    return this.answer(outputs);
  }
}

/** A drafter that says what FakeTargetEngine will, with a given chance. Its confidences are that chance. */
export class FakeDraftEngine extends FakeSequences implements DraftEngine {
  readonly checksBlocks: boolean;
  readonly maxBranchLength: number;
  readonly yieldCurve: readonly number[];
  readonly yieldCurveAfterMiss: readonly number[];
  private readonly accuracy: number;

  constructor(options: FakeDraftOptions = {}) {
    super(options);
    const { accuracy = 0.8, maxBranchLength = 8, checks = false } = options;
    this.checksBlocks = checks;
    this.accuracy = accuracy;
    this.maxBranchLength = maxBranchLength;
    const gains = Array.from({ length: maxBranchLength }, (_, i) => accuracy ** (i + 1));
    this.yieldCurve = [0, ...gains.map((_, i) => gains.slice(0, i + 1).reduce((sum, gain) => sum + gain, 0))];
    this.yieldCurveAfterMiss = this.yieldCurve;
  }

  async run(slots: readonly DraftSlot[]): Promise<RunResult<DraftOutput>> {
    checkDraftSlots(slots, this, this.rowsOf);
    const outputs = slots.map((slot) => {
      const states = this.write(slot);
      if (!slot.check) return { branches: slot.branches.map((branch) => this.drafted(slot, branch, states)) };
      const { accepted, ...branch } = this.checked(slot, slot.check, states);
      return { branches: [{ accepted, ...this.drafted(slot, branch, states, true) }] };
    });
    return this.answer(outputs);
  }

  /** Where the target will say another token than the block has, and the uniforms from there on. */
  private checked({ at, tokens, sampling }: DraftSlot, { block, u }: BlockCheck, states: readonly number[]) {
    const start = at + tokens.length - block;
    const said = positions(u, this.info.uniformsPerPosition).slice(0, block);
    const wrong = said.findIndex((values, k) => {
      return this.say(states[start + k] as number, start + k, sampling, values) !== tokens[tokens.length - block + k];
    });
    const accepted = wrong < 0 ? block : wrong;
    const end = u.length - (block - accepted) * this.info.uniformsPerPosition;
    return { accepted, visible: start + accepted, u: u.slice(accepted * this.info.uniformsPerPosition, end) };
  }

  /** @param surely the first token is right, as the target said it */
  private drafted(slot: DraftSlot, branch: BranchRequest, states: readonly number[], surely = false) {
    const { visible, u, excluded } = branch;
    let state = states[visible] as number;
    const tokens = Int32Array.from(positions(u, this.info.uniformsPerPosition), (values, i) => {
      const right = this.say(state, visible + i, slot.sampling, values);
      const luck = words(values).reduce(mix, mix(state, 0x5eed));
      const wrong = 1 + (right % (this.info.vocabulary - 1));
      // excluded is what it said here before: it has another try
      const tried = i === 0 && excluded === wrong ? mix(luck, 0x5eed) : luck;
      const token = (surely && i === 0) || tried / 2 ** 32 < this.accuracy ? right : wrong;
      state = mix(state, token);
      return token;
    });
    const confidences = new Float32Array(tokens.length).fill(this.accuracy);
    if (surely) confidences[0] = 1;
    return { tokens, confidences };
  }
}
