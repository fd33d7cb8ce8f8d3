import type { DescMethod, DescService } from '@bufbuild/protobuf';
import type {
  handleBidiStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  ServerDuplexStream,
  ServerWritableStream,
  UntypedHandleCall,
} from '@grpc/grpc-js';
import type { Logger } from 'pino';
import { drained } from './backpressure.ts';
import type { ActiveCalls, CallContext } from './call-context.ts';
import { toPtpError } from './errors.ts';
import { Inbox } from './message-queue.ts';
import { methodDefinition, type Request, type ResponseInit } from './methods.ts';
import { toStatus } from './status.ts';

/**
 * How a method is implemented, by its kind. What a handler throws ends the call with the status of errors.ts. A stream's
 * handler should be an async generator: it is suspended at `yield` while the client is slow to read, and its `finally`
 * runs however the call ends. When the context's signal is aborted the requests throw the signal's reason; a handler
 * that waits for something else has to heed the signal itself. Before it resets a stream grpc-js ends it, so that the
 * requests of a client that cancels may also just end, shortly before the signal is aborted.
 */
export type Handler<M extends DescMethod> = M['methodKind'] extends 'unary'
  ? (request: Request<M>, context: CallContext) => Promise<ResponseInit<M>> | ResponseInit<M>
  : M['methodKind'] extends 'server_streaming'
    ? (request: Request<M>, context: CallContext) => AsyncIterable<ResponseInit<M>>
    : M['methodKind'] extends 'bidi_streaming'
      ? (requests: AsyncIterable<Request<M>>, context: CallContext) => AsyncIterable<ResponseInit<M>>
      : never;

/** One handler for each of a service's methods, by camelCase names. */
export type Implementation<S extends DescService> = { readonly [K in keyof S['method']]: Handler<S['method'][K]> };

/** What handlers share inside one server. */
export interface Serving {
  readonly calls: ActiveCalls;
  readonly logger: Logger;
  /** How long a client may leave a stream unread, once buffers are full. */
  readonly stallMillis: number;
}

type StreamingCall = ServerWritableStream<unknown, Buffer> | ServerDuplexStream<unknown, Buffer>;

/** Turns a handler into what grpc-js calls. */
export function grpcHandler<M extends DescMethod>(method: M, handler: Handler<M>, serving: Serving): UntypedHandleCall {
  const serialize = methodDefinition(method).responseSerialize as (response: unknown) => Buffer;
  switch (method.methodKind) {
    case 'unary':
      return unary(handler as UnaryHandler, serialize, serving) as UntypedHandleCall;
    case 'server_streaming':
      return serverStreaming(handler as StreamHandler, serialize, serving) as UntypedHandleCall;
    case 'bidi_streaming':
      return bidiStreaming(handler as BidiHandler, serialize, serving) as UntypedHandleCall;
    default:
      throw new Error(`${method.toString()}: client streaming is not supported; no protocol of ours needs it`);
  }
}

type UnaryHandler = (request: unknown, context: CallContext) => unknown;
type StreamHandler = (request: unknown, context: CallContext) => AsyncIterable<unknown>;
type BidiHandler = (requests: AsyncIterable<unknown>, context: CallContext) => AsyncIterable<unknown>;
type Serialize = (response: unknown) => Buffer;

function unary(handler: UnaryHandler, serialize: Serialize, serving: Serving): handleUnaryCall<unknown, Buffer> {
  return async (call, callback) => {
    const { context, done } = serving.calls.open(call);
    try {
      const response = serialize(await handler(call.request, context));
      done();
      callback(null, response);
    } catch (error) {
      done();
      logFailure(error, context, serving);
      callback(toStatus(error));
    }
  };
}

function serverStreaming(
  handler: StreamHandler,
  serialize: Serialize,
  serving: Serving,
): handleServerStreamingCall<unknown, Buffer> {
  return (call) => {
    const { context, done } = serving.calls.open(call);
    respond(call, () => handler(call.request, context), serialize, context, serving).finally(done);
  };
}

function bidiStreaming(
  handler: BidiHandler,
  serialize: Serialize,
  serving: Serving,
): handleBidiStreamingCall<unknown, Buffer> {
  return (call) => {
    const { context, done } = serving.calls.open(call);
    const requests = new Inbox<unknown>(call);
    context.signal.addEventListener('abort', () => requests.fail(toPtpError(context.signal.reason)), { once: true });
    call.on('end', () => setImmediate(() => requests.end())); // after 'cancelled', if both have arrived
    respond(call, () => handler(requests, context), serialize, context, serving).finally(done);
  };
}

/** Writes what a handler yields, as fast as the client reads it, and ends the call. */
async function respond(
  call: StreamingCall,
  handle: () => AsyncIterable<unknown>,
  serialize: Serialize,
  context: CallContext,
  serving: Serving,
): Promise<void> {
  const { signal } = context;
  try {
    for await (const response of handle()) {
      signal.throwIfAborted();
      if (!call.write(serialize(response))) await drained(call, signal, serving.stallMillis);
    }
    call.end();
  } catch (error) {
    const reason = signal.aborted ? signal.reason : error;
    logFailure(reason, context, serving);
    if (!call.destroyed) call.emit('error', toStatus(reason));
  }
}

/** What the client isn't told about unforeseen errors is in the log. */
function logFailure(error: unknown, { path, peer }: CallContext, { logger }: Serving): void {
  const { code } = toPtpError(error);
  if (code === 'internal') logger.error({ err: error, path, peer }, 'a call failed');
  else logger.debug({ err: error, path, peer }, 'a call ended with an error');
}
