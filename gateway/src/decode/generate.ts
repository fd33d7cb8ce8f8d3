import { PtpError } from '@ptp/protocol/errors';
import { requireField } from '@ptp/protocol/validation';
import { Controller } from './controller.ts';
import { Driver } from './driver.ts';
import { Measurements } from './measurements.ts';
import { type StepObserver, startRequest } from './observer.ts';
import { DecodePipeline } from './pipeline.ts';
import type { DraftStream, Streams, VerifyStream } from './ports.ts';
import { proposersFor } from './proposers/proposers.ts';
import type { DraftLimits, GenerationRequest, GenerationStep, Generator, Health, ModelInfo } from './types.ts';

/**
 * Generates with a drafter and a verifier. Each request has its own pipeline and driver. All requests share the
 * measurements.
 */
export class PairGenerator implements Generator {
  readonly #streams: Streams;
  readonly #limits: DraftLimits;
  readonly #observers: readonly StepObserver[];
  readonly #measured: Measurements;

  constructor(streams: Streams, limits: DraftLimits, observers: readonly StepObserver[] = []) {
    this.#streams = streams;
    this.#limits = limits;
    this.#observers = observers;
    this.#measured = new Measurements(limits.length);
  }

  get model(): ModelInfo {
    return this.#streams.model;
  }

  health(): Health {
    return this.#streams.health();
  }

  async *generate(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationStep> {
    const { model } = this;
    const observed = { request, model, startedAt: performance.now(), traceparent: '' };
    const notify = startRequest(this.#observers, observed);
    const limits = limitsFor(request, this.#limits);
    const policy = new Controller(limits, this.#measured);
    let verifier: VerifyStream | undefined;
    let drafter: DraftStream | undefined;
    let finish: GenerationStep['finish'];
    let tokens = 0;
    let failure: { readonly error: unknown } | undefined;
    try {
      checkRequest(request, model, this.health());
      const { traceparent } = observed;
      const context = { signal, traceparent, onVerifierLoss: () => notify('verifierLost') };
      verifier = this.#streams.verify(request, context);
      drafter = limits.mode === 'plain' ? undefined : this.#streams.draft(request, context);
      const proposers = proposersFor(request, limits, model);
      const isPlain = limits.mode === 'plain' && proposers.length === 0 && !request.grammar;
      const pipeline = new DecodePipeline({ request, model, limits, policy, proposers, isPlain });
      for await (const step of new Driver({ pipeline, verifier, drafter, notify }).run()) {
        tokens += step.tokens.length;
        finish = step.finish;
        yield step;
      }
    } catch (error) {
      failure = { error };
      throw error;
    } finally {
      policy.close();
      drafter?.close();
      verifier?.close();
      const isAborted = !finish && signal.aborted;
      notify('requestFinished', { at: performance.now(), tokens, isAborted, ...(finish && { finish }), ...failure });
    }
  }
}

/** Returns the gateway's limits, overridden by the request's limits. */
function limitsFor({ draftLimits = {}, drafting }: GenerationRequest, limits: DraftLimits): DraftLimits {
  const length = Math.min(draftLimits.length ?? limits.length, limits.length);
  // A client that disables drafting must not count as a fallback.
  return { ...limits, ...draftLimits, length, ...(drafting === false && { mode: 'plain' as const }) };
}

/**
 * Rejects requests that the services would reject, before any stream is opened.
 *
 * @throws PtpError `out_of_range`
 */
function checkRequest(request: GenerationRequest, model: ModelInfo, health: Health): void {
  const { length } = request.prompt;
  if (length < 1 || length >= model.contextLength) {
    const message = `the prompt must have 1 to ${model.contextLength - 1} tokens, got ${length}`;
    throw new PtpError('out_of_range', message, { field: 'prompt' });
  }
  const room = model.contextLength - length;
  if (!Number.isInteger(request.maxTokens) || request.maxTokens < 1 || request.maxTokens > room) {
    const message = `\`max_tokens\` must be in [1, ${room}] after a prompt of ${length} tokens, got ${request.maxTokens}`;
    throw new PtpError('out_of_range', message, { field: 'max_tokens' });
  }
  const { repetitionPenalty = 1 } = request.adjustments ?? {};
  const isSupported = repetitionPenalty === 1 || !health.rejectsRepetitionPenalty;
  requireField(isSupported, 'repetition_penalty', '1 for this engine, which has no logits to scale', repetitionPenalty);
}
