import type { Metadata, ServerUnaryCall } from '@grpc/grpc-js';
import { PtpError } from './errors.ts';

/** What a handler knows of the call that it serves. */
export interface CallContext {
  /** Aborted with a PtpError when the client cancels or disappears, the deadline passes, or the server must end. */
  readonly signal: AbortSignal;
  /** What the client sent along; once per stream. */
  readonly metadata: Metadata;
  /** The client's address; `unknown` on a unix socket. */
  readonly peer: string;
  /** Milliseconds since 1970, or Infinity. */
  readonly deadline: number;
  /** `/package.Service/Method`, for logs. */
  readonly path: string;
}

/** What every kind of call has on a grpc-js server. */
type ServerCall = Pick<ServerUnaryCall<unknown, Buffer>, 'metadata' | 'getPeer' | 'getDeadline' | 'getPath'> & {
  on(event: 'cancelled', listener: () => void): unknown;
};

/** The calls that a server is busy with. */
export class ActiveCalls {
  readonly #controllers = new Set<AbortController>();

  /** Begins a call. `done` is to be called when its handler has returned, whatever came of it. */
  open(call: ServerCall): { context: CallContext; done: () => void } {
    const controller = new AbortController();
    this.#controllers.add(controller);
    const deadline = Number(call.getDeadline());
    // grpc-js says 'cancelled' after every call, and also when it has ended one whose deadline passed
    call.on('cancelled', () => {
      if (this.#controllers.has(controller)) controller.abort(Date.now() >= deadline ? deadlinePassed() : cancelled());
    });
    const context = {
      signal: controller.signal,
      metadata: call.metadata,
      peer: call.getPeer(),
      deadline,
      path: call.getPath(),
    };
    return { context, done: () => this.#controllers.delete(controller) };
  }

  /** Aborts all calls; their handlers are expected to end soon. */
  abort(reason: PtpError): void {
    for (const controller of this.#controllers) controller.abort(reason);
  }

  get size(): number {
    return this.#controllers.size;
  }
}

const cancelled = () => new PtpError('cancelled', 'the client has cancelled or is gone');
const deadlinePassed = () => new PtpError('deadline_exceeded', 'the deadline has passed');
