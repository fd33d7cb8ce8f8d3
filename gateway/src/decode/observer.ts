import type { Draft, DraftCall, StepRef, Verdict, VerifyCall } from './ports.ts';
import type { GenerationRequest, GenerationStep, ModelInfo } from './types.ts';

/** Listens to requests. Times (`at`) are `performance.now()` values. Each is measured once, when an answer arrives. */
export interface StepObserver {
  /** Returns the listener for the events of a request. */
  requestStarted(request: ObservedRequest): RequestObserver;
}

export interface ObservedRequest {
  readonly request: GenerationRequest;
  readonly model: ModelInfo;
  readonly startedAt: number;
  /** W3C trace context of the request, set by the tracing observer. Empty if the request is not traced. */
  traceparent: string;
}

export type Call = VerifyCall | DraftCall;

/** Answer or error of a call. Empty if the step was sent ahead and the verifier did not run it. */
export interface CallResult {
  readonly verdict?: Verdict | undefined;
  readonly draft?: Draft;
  readonly error?: unknown;
}

/** Listens to one request. Also receives answers to dropped steps, and answers after the end of the request. */
export interface RequestObserver {
  /** Called when a stream has opened or failed to open. */
  opened?(service: 'verifier' | 'drafter', result: { at: number; reusedTokens?: number; error?: unknown }): void;
  /** Called when a block is sent to the verifier, or a draft is requested. */
  callSent?(call: Call, at: number): void;
  callEnded?(call: Call, result: CallResult, at: number): void;
  /** Called when a step that was sent ahead has become obsolete and was dropped. */
  stepDropped?(step: StepRef): void;
  stepFinished?(step: GenerationStep, at: number): void;
  /** Called when the request has lost its verifier and continues at another verifier. */
  verifierLost?(): void;
  requestFinished?(outcome: RequestOutcome): void;
}

export interface RequestOutcome {
  readonly at: number;
  /** Reason why the text ended. Unset if the request failed or its client stopped reading. */
  readonly finish?: GenerationStep['finish'];
  readonly error?: unknown;
  /** True if the client disconnected before the end. */
  readonly isAborted: boolean;
  readonly tokens: number;
}

/** Passes an event on to all listeners of a request. */
export type Notify = <Event extends keyof RequestObserver>(
  event: Event,
  ...details: Parameters<Required<RequestObserver>[Event]>
) => void;

/** Announces a request to all observers. Returns the function that notifies their listeners, in order. */
export function startRequest(observers: readonly StepObserver[], request: ObservedRequest): Notify {
  const listeners = observers.map((observer) => observer.requestStarted(request));
  return (event, ...details) => {
    for (const listener of listeners) (listener[event] as ((...details: unknown[]) => void) | undefined)?.(...details);
  };
}
