import { setTimeout as sleep } from 'node:timers/promises';
import { type StepObserver, startRequest } from '../../src/decode/observer.ts';
import type {
  GenerationRequest,
  GenerationStep,
  Generator,
  Health,
  ModelInfo,
  PromptScores,
  StepStats,
  TopTokens,
} from '../../src/decode/types.ts';

/** The steps that a scripted generator yields for one request. */
export interface Script {
  /** Tokens of each step. The last step has the finish reason. */
  readonly steps: readonly (readonly number[])[];
  readonly finish?: 'stop' | 'length';
  /** Number of reused tokens that the first step reports. */
  readonly reusedTokens?: number;
  /** Delay before each step. */
  readonly delayMillis?: number;
  /** Error that is thrown after the steps, in place of a finish reason. */
  readonly error?: unknown;
  /** True to repeat the steps until the request is aborted. */
  readonly endless?: boolean;
  /** Source of the drafted tokens. Default: the drafter. */
  readonly source?: StepStats['source'];
  /** Number of the step from which on tokens are picked only from the most probable ones. Default: none. */
  readonly truncatedFrom?: number;
}

/** A generator with scripted steps. In each step, all tokens but the last are accepted drafts, and one more drafted token is rejected. */
export class ScriptedGenerator implements Generator {
  readonly model: ModelInfo;
  readonly requests: GenerationRequest[] = [];
  /** Number of requests whose signal was aborted before they finished. */
  aborted = 0;
  running = 0;
  verifier = true;
  drafter = true;
  /** Properties of its engine that the verifier reports. */
  target: Partial<Health> = {};
  script: (request: GenerationRequest) => Script = () => ({ steps: [[]] });

  readonly #observers: readonly StepObserver[];

  /** @param observers observers that receive requests and steps, but no calls to services, because there are none */
  constructor(model: Partial<ModelInfo> = {}, observers: readonly StepObserver[] = []) {
    this.#observers = observers;
    this.model = { modelId: 'test-model', vocabulary: 2048, contextLength: 512, endOfText: 0, ...model };
  }

  async *generate(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationStep> {
    const { model } = this;
    const startedAt = performance.now();
    const notify = startRequest(this.#observers, { request, model, startedAt, traceparent: '' });
    let [finish, tokens]: [GenerationStep['finish'], number] = [undefined, 0];
    let failure = {};
    try {
      for await (const step of this.#steps(request, signal)) {
        finish = step.finish;
        tokens += step.tokens.length;
        notify('stepFinished', step, performance.now());
        yield step;
      }
    } catch (error) {
      failure = { error };
      throw error;
    } finally {
      const isAborted = !finish && signal.aborted;
      notify('requestFinished', { at: performance.now(), tokens, isAborted, ...(finish && { finish }), ...failure });
    }
  }

  async *#steps(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationStep> {
    this.requests.push(request);
    this.running++;
    try {
      const script = this.script(request);
      let given = 0;
      for (let step = 0; script.endless || step < script.steps.length; step++) {
        // Yields to the event loop, as a real generator does.
        await sleep(script.delayMillis ?? 0, undefined, { signal });
        const tokens = (script.steps[step % script.steps.length] ?? []).slice(0, request.maxTokens - given);
        given += tokens.length;
        const full = given >= request.maxTokens;
        const last = full || (!script.endless && !script.error && step === script.steps.length - 1);
        const accepted = Math.max(0, tokens.length - 1);
        const chosen = {
          mode: 'sequential',
          reason: 'setting',
          source: script.source ?? 'drafter',
          offered: accepted + 1,
          budget: 0,
        } as const;
        const stats = { step, ...chosen, drafted: accepted + 1, accepted, ...noTimes };
        const finish = full ? 'length' : (script.finish ?? 'stop');
        const reused = step === 0 && script.reusedTokens && { reusedTokens: script.reusedTokens };
        const tops = topsOf(tokens, request.topCount ?? 0);
        const proposed = [...tokens.slice(0, accepted), 1];
        yield {
          tokens,
          proposed,
          logProbabilities: tokens.map(() => -1),
          tops,
          stats,
          ...reused,
          ...(step >= (script.truncatedFrom ?? Number.POSITIVE_INFINITY) && { truncated: true }),
          ...(step === 0 && request.promptLogprobs && { prompt: promptOf(request) }),
          ...(last && { finish }),
        };
        if (last) return;
      }
      throw script.error;
    } finally {
      this.running--;
      if (signal.aborted) this.aborted++;
    }
  }

  health(): Health {
    return { verifier: this.verifier, drafter: this.drafter, ...this.target };
  }
}

const noTimes = {
  stepMicros: 0,
  aheadMicros: 0,
  verifyMicros: 0,
  draftMicros: 0,
  redraftMicros: 0,
  verifyRunMicros: 0,
  draftRunMicros: 0,
};

/** Returns the log-probabilities of all tokens after the first: -1/4, -2/4 and so on. */
function promptOf({ prompt, topCount = 0 }: GenerationRequest): PromptScores {
  const later = prompt.slice(1);
  return { logProbabilities: later.map((_, n) => -(n + 1) / 4), tops: topsOf(later, topCount) };
}

/** Returns alternatives to each token: the token itself and the tokens that follow it in the vocabulary. */
function topsOf(tokens: readonly number[], count: number): TopTokens[] {
  if (count === 0) return [];
  const ranks = Array.from({ length: count }, (_, rank) => rank);
  return tokens.map((token) => ({
    ids: ranks.map((rank) => token + rank),
    logProbabilities: ranks.map((rank) => -1 - rank),
  }));
}
