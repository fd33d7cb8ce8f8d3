import type { DescMethod, DescService } from '@bufbuild/protobuf';
import type {
  handleUnaryCall,
  Metadata,
  ServerDuplexStream,
  ServerUnaryCall,
  ServerWritableStream,
  UntypedHandleCall,
} from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { waitForDrain } from './backpressure.ts';
import { PtpError, toPtpError } from './errors.ts';
import { MessageQueue } from './message-queue.ts';
import { methodDefinition, type Request, type ResponseInit } from './methods.ts';
import { toStatus } from './status.ts';

/** Properties of a call that its handler can see. */
export interface CallContext {
  /** Aborted with a PtpError when the client cancels or disappears, the deadline passes, or the server shuts down. */
  readonly signal: AbortSignal;
  /** Metadata that the client sent with the call. */
  readonly metadata: Metadata;
  /** The client's address, or `unknown` on a unix socket. */
  readonly peer: string;
  /** Deadline in milliseconds since 1970, or Infinity if there is none. */
  readonly deadline: number;
  /** `/package.Service/Method`, for logs. */
  readonly path: string;
}

/**
 * Implementation of a method. Its type depends on whether the method is unary or streaming. If a handler throws an
 * error, the call ends with that error's status (errors.ts). A handler that returns a stream should be an async
 * generator: it is suspended at `yield` while the client reads slowly, and its `finally` block runs however the call
 * ends. When the signal is aborted, iterating over the requests throws the signal's reason; a handler that awaits
 * anything else must observe the signal. grpc-js ends a stream before resetting it, so when a client cancels, its
 * requests may simply end shortly before the signal is aborted.
 */
export type Handler<M extends DescMethod> = M['methodKind'] extends 'unary'
  ? (request: Request<M>, context: CallContext) => Promise<ResponseInit<M>> | ResponseInit<M>
  : M['methodKind'] extends 'server_streaming'
    ? (request: Request<M>, context: CallContext) => AsyncIterable<ResponseInit<M>>
    : M['methodKind'] extends 'bidi_streaming'
      ? (requests: AsyncIterable<Request<M>>, context: CallContext) => AsyncIterable<ResponseInit<M>>
      : never;

/** One handler for each method of a service, keyed by camelCase name. */
export type Implementation<S extends DescService> = { readonly [K in keyof S['method']]: Handler<S['method'][K]> };

/** State that the handlers of one server share. */
export interface HandlerOptions {
  readonly calls: ActiveCalls;
  readonly logger: Logger;
  /** Maximum time in milliseconds that a client may leave a stream unread once its buffers are full. */
  readonly stallMillis: number;
}

type ServerCall = Pick<ServerUnaryCall<unknown, Buffer>, 'metadata' | 'getPeer' | 'getDeadline' | 'getPath'> & {
  on(event: 'cancelled', listener: () => void): unknown;
};
type StreamingCall = ServerWritableStream<unknown, Buffer> | ServerDuplexStream<unknown, Buffer>;

/** The calls in progress on a server. */
export class ActiveCalls {
  readonly #controllers = new Set<AbortController>();

  /** Registers a call. `done` must be called once the call's handler has returned or thrown. */
  open(call: ServerCall): { context: CallContext; cancel: () => void; done: () => void } {
    const controller = new AbortController();
    this.#controllers.add(controller);
    const deadline = Number(call.getDeadline());
    // Even if grpc-js ends a call because its deadline has passed, it emits 'cancelled' at the end of the call.
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
    const cancel = () => controller.abort(cancelled());
    return { context, cancel, done: () => this.#controllers.delete(controller) };
  }

  /** Aborts all calls. Their handlers are expected to end soon. */
  abort(reason: PtpError): void {
    for (const controller of this.#controllers) controller.abort(reason);
  }

  get size(): number {
    return this.#controllers.size;
  }
}

const cancelled = () => new PtpError('cancelled', 'the client has cancelled the call or disconnected');
const deadlinePassed = () => new PtpError('deadline_exceeded', 'the deadline has passed');

/** Wraps a handler in the function that grpc-js calls. */
export function grpcHandler<M extends DescMethod>(
  method: M,
  handler: Handler<M>,
  options: HandlerOptions,
): UntypedHandleCall {
  const serialize = methodDefinition(method).responseSerialize as Serialize;
  switch (method.methodKind) {
    case 'unary':
      return unary(handler as UnaryHandler, serialize, options) as UntypedHandleCall;
    case 'server_streaming':
      return streaming(handler as StreamHandler, singleRequest, serialize, options) as UntypedHandleCall;
    case 'bidi_streaming':
      return streaming(handler as StreamHandler, requestQueue, serialize, options) as UntypedHandleCall;
    default:
      throw new Error(`${method.toString()}: client streaming is not implemented`);
  }
}

type UnaryHandler = (request: unknown, context: CallContext) => unknown;
type StreamHandler = (input: unknown, context: CallContext) => AsyncIterable<unknown>;
type Serialize = (response: unknown) => Buffer;

function unary(handler: UnaryHandler, serialize: Serialize, options: HandlerOptions): handleUnaryCall<unknown, Buffer> {
  return async (call, callback) => {
    const { context, done } = options.calls.open(call);
    try {
      const response = serialize(await handler(call.request, context));
      done();
      callback(null, response);
    } catch (error) {
      done();
      logFailure(error, context, options);
      callback(toStatus(error));
    }
  };
}

/** Writes the responses that a handler yields, at the client's pace, and ends the call. */
function streaming<Call extends StreamingCall>(
  handler: StreamHandler,
  inputOf: (call: Call, signal: AbortSignal, cancel: () => void) => unknown,
  serialize: Serialize,
  options: HandlerOptions,
): (call: Call) => Promise<void> {
  return async (call) => {
    const { context, cancel, done } = options.calls.open(call);
    const { signal } = context;
    try {
      for await (const response of handler(inputOf(call, signal, cancel), context)) {
        signal.throwIfAborted();
        if (!call.write(serialize(response))) await waitForDrain(call, signal, options.stallMillis);
      }
      call.end();
    } catch (error) {
      const reason = signal.aborted ? signal.reason : error;
      logFailure(reason, context, options);
      if (!call.destroyed) call.emit('error', toStatus(reason));
    } finally {
      done();
    }
  };
}

const singleRequest = (call: ServerWritableStream<unknown, Buffer>): unknown => call.request;

function requestQueue(
  call: ServerDuplexStream<unknown, Buffer>,
  signal: AbortSignal,
  cancel: () => void,
): MessageQueue<unknown> {
  const requests = new MessageQueue<unknown>(call);
  // This message takes effect when it arrives, even while the handler works on an earlier one.
  call.on('data', (message) => isCancel(message) && cancel());
  signal.addEventListener('abort', () => requests.fail(toPtpError(signal.reason)), { once: true });
  call.on('end', () => setImmediate(() => requests.end())); // This error is handled after 'cancelled' if both have arrived.
  return requests;
}

/** Returns true for the message that cancels a stream between services. */
function isCancel(message: { readonly kind?: { readonly case?: string } }): boolean {
  return message.kind?.case === 'cancel';
}

/** Logs an error. The details of an unexpected error appear only in the log. */
function logFailure(error: unknown, { path, peer }: CallContext, { logger }: HandlerOptions): void {
  const { code } = toPtpError(error);
  if (code === 'internal') logger.error({ err: error, path, peer }, 'a call failed');
  else logger.debug({ err: error, path, peer }, 'a call ended with an error');
}
