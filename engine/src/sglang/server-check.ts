import { setTimeout as sleep } from 'node:timers/promises';
import { PtpError, toPtpError } from '@ptp/protocol/errors';
import { Backoff } from '@ptp/service-kit/backoff';
import { randomTokens } from '../sampling/uniforms.ts';
import type { EngineInfo } from '../types.ts';
import { readScores } from './answer.ts';
import { type ScoreRequest, scoreBody } from './score-request.ts';
import type { SglangServer } from './server.ts';

/** Number of tokens in the text that all servers score. */
const PROBE_LENGTH = 16;
/**
 * Maximum average difference between two servers' log-probabilities of this text. Rounding on other hardware changes
 * them by some hundredths, another model by several units.
 */
const PROBE_TOLERANCE = 0.25;
/** Pauses in milliseconds between the attempts to reach a server at startup. */
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 5000;

/** Decides whether a server can be used. */
export class ServerCheck {
  readonly #info: EngineInfo;
  readonly #probe: ScoreRequest;
  #reference: { readonly url: string; readonly scores: readonly number[] } | undefined;

  constructor(info: EngineInfo) {
    this.#info = info;
    const length = Math.min(PROBE_LENGTH, info.contextLength);
    const tokens = randomTokens(1n, length, info.vocabulary);
    this.#probe = { tokens, at: 0, probe: 0, top: 1, named: [] };
  }

  /**
   * Checks that a server answers, holds the whole context, and has the same model as the server checked first.
   *
   * @throws PtpError `failed_precondition` if it has other settings or another model, otherwise as SglangServer does
   */
  async check(server: SglangServer): Promise<void> {
    const { max_req_input_len: limit } = await server.info();
    const { contextLength } = this.#info;
    // A request has one token more than the sequence.
    if (limit && limit <= contextLength) {
      const problem = `takes requests of up to ${limit} tokens: set \`PTP_CONTEXT_LENGTH\` to at most ${limit - 1} in all services, or a longer --context-length in SGLang; got ${contextLength}`;
      throw server.error('failed_precondition', problem);
    }
    const scores = await this.#scores(server);
    this.#reference ??= { url: server.url, scores };
    const { url, scores: expected } = this.#reference;
    const difference = scores.reduce((sum, score, i) => sum + Math.abs(score - (expected[i] as number)), 0);
    if (difference > PROBE_TOLERANCE * scores.length) {
      const average = (difference / scores.length).toFixed(3);
      const problem = `must serve the same model as ${url}: the log-probabilities of a text differ by ${average} on average, and the limit is ${PROBE_TOLERANCE}`;
      throw server.error('failed_precondition', problem);
    }
  }

  /** Returns the log-probability of each token of the probe after those before it. */
  async #scores(server: SglangServer): Promise<number[]> {
    const scores = await server.generate(scoreBody(this.#probe), (answer) =>
      readScores(answer, this.#probe, this.#info.vocabulary),
    );
    return scores.map(({ named }) => named.logProbabilities[0] as number);
  }
}

/**
 * Waits until at least one server can be used.
 *
 * @param onWait function that is called with the reason each time that no server can be used yet
 * @throws PtpError `failed_precondition` if a server has other settings or another model, or if none can be used in time
 */
export async function waitForServers(
  servers: readonly SglangServer[],
  check: ServerCheck,
  limitMs: number,
  onWait: (error: PtpError) => void,
): Promise<{ ready: SglangServer[]; failed: SglangServer[] }> {
  const backoff = new Backoff(FIRST_PAUSE_MS, LONGEST_PAUSE_MS);
  const deadline = performance.now() + limitMs;
  for (;;) {
    const ready: SglangServer[] = [];
    const failed: SglangServer[] = [];
    let reason: PtpError | undefined;
    for (const server of servers) {
      try {
        await check.check(server);
        ready.push(server);
      } catch (error) {
        reason = toPtpError(error);
        if (reason.code === 'failed_precondition') throw reason;
        failed.push(server);
      }
    }
    if (ready.length > 0 || !reason) return { ready, failed };
    if (performance.now() >= deadline) {
      const problem = `no SGLang server could be used within ${limitMs / 1000} s: ${reason.message}`;
      throw new PtpError('failed_precondition', problem, { cause: reason });
    }
    onWait(reason);
    await sleep(backoff.next());
  }
}
