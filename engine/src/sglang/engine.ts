import { PtpError, toPtpError } from '@ptp/protocol/errors';
import { CANDIDATE_LIMIT, loadManifest } from '@ptp/protocol/manifest';
import { fieldError } from '@ptp/protocol/validation';
import { EngineBase } from '../engine-base.ts';
import { wholeBlocks } from '../prefix-blocks.ts';
import { startError } from '../start-error.ts';
import type {
  DraftEngine,
  EngineInfo,
  EngineOptions,
  PrefixCacheUsage,
  RunResult,
  SequenceId,
  TargetEngine,
  TargetOutput,
  TargetSlot,
} from '../types.ts';
import { checkEmpty, checkTargetSlots } from '../validate-slots.ts';
import { readCachedTokens, readScores } from './answer.ts';
import { prefillBody, scoreBody } from './score-request.ts';
import { SglangServer } from './server.ts';
import { ServerCheck, waitForServers } from './server-check.ts';
import { type Lease, type PoolTimes, ServerPool } from './server-pool.ts';
import { runSlot } from './slot-run.ts';

/** Maximum number of slots in a run. Each slot is one HTTP request, and SGLang batches requests on its own. */
const MAX_SLOTS = 64;
/**
 * Maximum number of prompt tokens in one run. `reusePrefix` makes the server read the prompt, so that such a run costs
 * nothing but its turn, and fewer runs are better.
 */
const PREFILL_CHUNK = 1024;
/** Time in milliseconds to wait for servers at startup, enough to load a large model. */
const START_LIMIT_MS = 15 * 60_000;

export interface SglangOptions extends EngineOptions {
  /** Time in milliseconds to wait for servers at startup. Default: START_LIMIT_MS. */
  readonly startLimitMs?: number;
  /** Maximum duration of a short request in milliseconds. Default: REQUEST_TIMEOUT_MS in server.ts. */
  readonly requestTimeoutMs?: number;
  readonly times?: Partial<PoolTimes>;
}

/**
 * Connects to SGLang servers that run a model.
 *
 * @param options options of the engine, whose `dir` is the folder with the model's tokenizer and sizes
 * @throws PtpError `failed_precondition` if no server can be used
 */
export async function openTargetEngine(options: SglangOptions): Promise<TargetEngine> {
  const { dir, contextLength, address = '', logger, startLimitMs = START_LIMIT_MS } = options;
  const manifest = await loadManifest(dir, contextLength);
  const info: EngineInfo = {
    vocabulary: manifest.sizes.vocab,
    contextLength: manifest.context_length,
    uniformsPerPosition: manifest.uniforms_per_position,
    maxSlots: MAX_SLOTS,
    maxSequences: options.sequences || Number.POSITIVE_INFINITY,
    bytesPerToken: manifest.bytes_per_token.target,
    prefillChunk: PREFILL_CHUNK,
    engine: 'sglang',
    candidateLimit: CANDIDATE_LIMIT,
    rejectsRepetitionPenalty: true,
  };
  if (manifest.pick !== 'tree') {
    throw startError(`SGLang needs a model with \`pick\` tree, got ${manifest.pick} in \`${dir}\``);
  }
  const check = new ServerCheck(info);
  const found = await waitForServers(
    address.split(',').map((url) => new SglangServer(url.trim(), options.requestTimeoutMs)),
    check,
    startLimitMs,
    (err) => logger?.info({ err }, 'waiting for SGLang servers'),
  );
  const isPrefixCacheOn = (options.prefixCacheBytes ?? 0) > 0;
  return new SglangEngine(info, isPrefixCacheOn, (onDeath) => {
    const { times } = options;
    return new ServerPool({ ...found, check: (server) => check.check(server), onDeath, logger, times });
  });
}

/** Always throws, because SGLang serves no drafters. @throws PtpError `failed_precondition` */
export async function openDraftEngine(): Promise<DraftEngine> {
  throw startError('SGLang serves no drafters: set the address of a `ptp-engine drafter`, or none');
}

interface ServedSequence {
  readonly tokens: readonly number[];
  readonly lease: Lease;
}

/**
 * Target that picks from the log-probabilities of SGLang servers. The rows of a sequence are a list of its tokens here; a
 * run sends them all, and the server's radix cache has the keys and values of most. To roll back is to send other tokens.
 */
class SglangEngine extends EngineBase implements TargetEngine {
  readonly #pool: ServerPool;
  readonly #isPrefixCacheOn: boolean;
  readonly #sequences = new Map<SequenceId, ServedSequence>();
  #counts = { lookups: 0, hits: 0, reusedTokens: 0 };

  constructor(info: EngineInfo, isPrefixCacheOn: boolean, pool: (die: (error: PtpError) => void) => ServerPool) {
    super(info);
    this.#isPrefixCacheOn = isPrefixCacheOn;
    this.#pool = pool((error) => this.die(error));
  }

  override open(): SequenceId {
    const sequence = super.open();
    this.#sequences.set(sequence, { tokens: [], lease: this.#pool.lease() });
    return sequence;
  }

  protected override release(sequence: SequenceId): void {
    this.#sequences.get(sequence)?.lease.end();
    this.#sequences.delete(sequence);
  }

  /**
   * Makes a server read the whole prompt into its cache, at the same time as runs of other sequences.
   *
   * @returns number of tokens that the server had in its cache, in whole blocks, or 0 if the prefix cache is off
   */
  async reusePrefix(sequence: SequenceId, tokens: readonly number[]): Promise<number> {
    checkEmpty(sequence, this.rowsOf);
    if (tokens.length === 0) return 0;
    const { lease } = this.#sequences.get(sequence) as ServedSequence;
    const cached = await lease.call((server) => {
      return server.generate(prefillBody(tokens), (answer) => readCachedTokens(answer, tokens.length));
    });
    if (this.rowsOf(sequence) === undefined) return 0;
    const rows = this.#isPrefixCacheOn ? wholeBlocks(cached) : 0;
    const { lookups, hits, reusedTokens } = this.#counts;
    this.#counts = { lookups: lookups + 1, hits: hits + Number(rows > 0), reusedTokens: reusedTokens + rows };
    this.#write(sequence, 0, tokens.slice(0, rows));
    return rows;
  }

  /** Returns counts of the servers' radix caches. Their contents are not known here. */
  prefixCache(): PrefixCacheUsage {
    return { sequences: 0, bytes: 0, ...this.#counts };
  }

  async run(slots: readonly TargetSlot[]): Promise<RunResult<TargetOutput>> {
    checkTargetSlots(slots, this.info, this.rowsOf);
    for (const slot of slots) checkPenalty(slot);
    const { id, answer } = this.begin<RunResult<TargetOutput>>();
    const started = performance.now();
    const served = slots.map((slot) => this.#serve(slot, this.#write(slot.sequence, slot.at, slot.tokens)));
    Promise.all(served).then(
      (outputs) => this.settle(id, { outputs, runMicros: Math.round((performance.now() - started) * 1000) }),
      (cause: unknown) => {
        this.recordFailure(slots);
        this.settle(id, toPtpError(cause));
      },
    );
    return answer;
  }

  async dispose(): Promise<void> {
    this.end(new PtpError('unavailable', 'the engine has been stopped'));
    this.#pool.close();
  }

  /** Writes the rows of tokens. @returns the sequence, whose tokens end with them */
  #write(sequence: SequenceId, at: number, tokens: readonly number[]): ServedSequence {
    const { lease, tokens: held } = this.#sequences.get(sequence) as ServedSequence;
    const written = { lease, tokens: [...held.slice(0, at), ...tokens] };
    this.#sequences.set(sequence, written);
    this.recordRows(sequence, written.tokens.length);
    return written;
  }

  #serve(slot: TargetSlot, { tokens, lease }: ServedSequence): Promise<TargetOutput> {
    const { vocabulary } = this.info;
    return runSlot(slot, tokens, this.info, (request) =>
      lease.call((server) => server.generate(scoreBody(request), (answer) => readScores(answer, request, vocabulary))),
    );
  }
}

/**
 * Rejects a repetition penalty, which divides positive logits and multiplies negative ones: SGLang's log-probabilities do
 * not tell the sign of a logit.
 *
 * @throws PtpError `invalid_argument`
 */
function checkPenalty({ adjust = [] }: TargetSlot): void {
  const scaling = adjust.find(({ scaled, scale }) => scaled.length > 0 && scale !== 1);
  if (!scaling) return;
  throw fieldError(
    'repetition_penalty',
    `must be 1 for a model in SGLang, which returns no logits, got ${scaling.scale}`,
  );
}
