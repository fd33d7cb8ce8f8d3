import { PtpError } from '@ptp/protocol/errors';
import { attribute } from '@ptp/service-kit/spans';
import { endRequestSpan, requestSpan } from '../observe/spans.ts';
import { Controller, type DraftLimits, Measurements } from './controller.ts';
import { Run } from './driver.ts';
import type { DraftStream, Streams, VerifyStream } from './ports.ts';
import type { GenerationRequest, GenerationStep, Generator, Health, ModelInfo, OnSpan } from './types.ts';

/** The loop over the two services (docs/design.md, "The loop"): draft and verify are in flight at the same time, step after step. */
export class PairGenerator implements Generator {
  readonly #streams: Streams;
  readonly #limits: DraftLimits;
  readonly #measured: Measurements;

  constructor(streams: Streams, limits: DraftLimits) {
    this.#streams = streams;
    this.#limits = limits;
    this.#measured = new Measurements(limits.length);
  }

  get model(): ModelInfo {
    return this.#streams.model;
  }

  health(): Health {
    return this.#streams.health();
  }

  async *generate(request: GenerationRequest, signal: AbortSignal, onSpan?: OnSpan): AsyncGenerator<GenerationStep> {
    checkRequest(request, this.model);
    const span = requestSpan(request, this.model);
    onSpan?.(span);
    let failure: unknown;
    let tokens = 0;
    let finish: GenerationStep['finish'];
    let verifier: VerifyStream | undefined;
    let drafter: DraftStream | undefined;
    let run: Run | undefined;
    const limits = limitsFor(request, this.#limits);
    const controller = new Controller(limits, this.#measured);
    try {
      verifier = this.#streams.verify(request, signal, span);
      drafter = limits.mode === 'plain' ? undefined : this.#streams.draft(request, signal, span);
      run = new Run(request, this.model, { controller, limits, verifier, drafter, span });
      const { reusedTokens, prompt } = await run.opened();
      span.setAttribute(attribute.cachedTokens, reusedTokens);
      while (!finish) {
        const step = await run.step();
        tokens += step.tokens.length;
        finish = step.finish;
        yield step.stats.step === 0 ? { ...step, reusedTokens, ...(prompt && { prompt }) } : step;
      }
    } catch (error) {
      failure = error;
      throw error;
    } finally {
      run?.close();
      controller.close();
      drafter?.close();
      verifier?.close();
      endRequestSpan(span, { failure, finish, promptTokens: request.prompt.length, tokens });
    }
  }
}

/** The gateway's limits with what the request wants otherwise. */
function limitsFor({ draftLimits = {}, drafting }: GenerationRequest, limits: DraftLimits): DraftLimits {
  const length = Math.min(draftLimits.length ?? limits.length, limits.length);
  // a step that was not to draft is no fallback for want of a drafter
  return { ...limits, ...draftLimits, length, ...(drafting === false && { mode: 'plain' as const }) };
}

/** @throws PtpError for what the services would refuse, before any stream is opened */
function checkRequest(request: GenerationRequest, model: ModelInfo): void {
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
}
