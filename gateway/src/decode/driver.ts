import { EventEmitter, on } from 'node:events';
import { PtpError } from '@ptp/protocol/errors';
import type { CallResult, Notify } from './observer.ts';
import type { DecodePipeline } from './pipeline.ts';
import type { Command, PipelineEvent } from './pipeline-types.ts';
import type { Draft, DraftCall, DraftStream, Opened, VerifyCall, VerifyStream } from './ports.ts';
import type { GenerationStep } from './types.ts';

export interface DriverParts {
  readonly pipeline: DecodePipeline;
  readonly verifier: VerifyStream;
  readonly drafter: DraftStream | undefined;
  readonly notify: Notify;
}

/**
 * Runs a pipeline with the two services: executes its commands and passes the answers back. No other code in
 * `decode` sends steps to the services.
 */
export class Driver {
  readonly #parts: DriverParts;
  /** Emits the pipeline's events. An `error` ends the run, and later errors are ignored. */
  readonly #emitter = new EventEmitter<{ event: [PipelineEvent]; error: [unknown] }>().on('error', () => {});
  readonly #events = on(this.#emitter, 'event');

  constructor(parts: DriverParts) {
    this.#parts = parts;
  }

  async *run(): AsyncGenerator<GenerationStep> {
    const { pipeline, drafter, notify } = this.#parts;
    const { reusedTokens, prompt } = await this.#open();
    for (;;) {
      for (const command of pipeline.next(performance.now(), drafter?.available() ?? false)) this.#carryOut(command);
      const finished = pipeline.takeFinished();
      if (!finished) {
        const { value } = await this.#events.next();
        pipeline.receive((value as [PipelineEvent])[0]);
        continue;
      }
      const isFirst = finished.stats.step === 0;
      const step = isFirst ? { ...finished, reusedTokens, ...(prompt && { prompt }) } : finished;
      notify('stepFinished', step, performance.now());
      yield step;
      if (step.finish) return;
    }
  }

  /** Resolves once the verifier has processed the prompt. The first block is drafted in the meantime. */
  async #open(): Promise<Opened> {
    const { pipeline, verifier, drafter, notify } = this.#parts;
    const opened = verifier.opened();
    opened.then(
      ({ reusedTokens }) => notify('opened', 'verifier', { at: performance.now(), reusedTokens }),
      (error) => notify('opened', 'verifier', { at: performance.now(), error }),
    );
    if (drafter) {
      await drafter.opened(opened);
      const error = drafter.available()
        ? undefined
        : new PtpError('unavailable', 'the drafter has not processed the prompt');
      notify('opened', 'drafter', { at: performance.now(), ...(error && { error }) });
      const call = pipeline.firstDraft();
      if (call) this.#draft(call);
    }
    return opened;
  }

  #carryOut(command: Command): void {
    const { drafter, notify } = this.#parts;
    switch (command.kind) {
      case 'commit':
        drafter?.commit(command.tokens);
        break;
      case 'drop':
        notify('stepDropped', command.step);
        break;
      case 'verify':
        this.#verify(command);
        break;
      default:
        this.#draft(command);
    }
  }

  #verify(call: VerifyCall): void {
    const { verifier, notify } = this.#parts;
    const { step } = call;
    notify('callSent', call, performance.now());
    verifier.step(call).then(
      (verdict) => {
        const at = performance.now();
        notify('callEnded', call, { verdict }, at);
        this.#emitter.emit('event', { kind: 'verdict', step, verdict, at });
      },
      (error) => {
        notify('callEnded', call, { error }, performance.now());
        this.#emitter.emit('error', error);
      },
    );
    // The verify call takes longest in most steps, so it is sent before the draft call.
    if (call.overlapped) setImmediate(() => this.#emitter.emit('event', { kind: 'verifySent', step }));
  }

  /** Requests a draft. If the drafter is unavailable or fails, the pipeline receives an event without a draft. */
  #draft(call: DraftCall): void {
    const { drafter, notify } = this.#parts;
    const { kind, step } = call;
    const answer = (draft: Draft | undefined, at: number) => this.#emitter.emit('event', { kind, step, draft, at });
    if (!drafter?.available()) {
      answer(undefined, performance.now());
      return;
    }
    const end = (result: CallResult) => {
      const at = performance.now();
      notify('callEnded', call, result, at);
      answer(result.draft, at);
    };
    notify('callSent', call, performance.now());
    drafter.step(call).then(
      (draft) => end({ draft }),
      (error) => end({ error }),
    );
  }
}
