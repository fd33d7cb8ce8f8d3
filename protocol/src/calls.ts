import { type Client, type CallOptions as GrpcCallOptions, Metadata, type ServiceError } from '@grpc/grpc-js';
import { PtpError, toPtpError } from './errors.ts';
import { Inbox } from './message-queue.ts';
import { identity } from './methods.ts';
import { fromStatus } from './status.ts';

/** Options of one call. */
export interface CallOptions {
  /** Cancels the call when aborted; the call then fails with the signal's reason as a PtpError. */
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds from now until the call fails with `deadline_exceeded`, on both sides. */
  readonly deadlineMs?: number | undefined;
  /** Sent once, before the first message. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}

/** What a caller has to know of a method. */
export interface CallableMethod<In, Out> {
  readonly path: string;
  readonly requestSerialize: (request: In) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => Out;
}

/**
 * One request, one response.
 *
 * @throws PtpError the server's error, or `unavailable`, `deadline_exceeded`, `cancelled`
 */
export function callUnary<In, Out>(
  client: Client,
  method: CallableMethod<In, Out>,
  request: In,
  options: CallOptions = {},
): Promise<Out> {
  const { signal } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) throw toPtpError(signal.reason);
    const bytes = method.requestSerialize(request);
    const cancel = () => call.cancel();
    const call = client.makeUnaryRequest(
      method.path,
      identity,
      method.responseDeserialize,
      bytes,
      metadata(options),
      grpcOptions(options),
      (error, response) => {
        signal?.removeEventListener('abort', cancel);
        if (error) reject(fromStatus(error, signal));
        else resolve(response as Out);
      },
    );
    signal?.addEventListener('abort', cancel, { once: true });
  });
}

/** One request, many responses. */
export function callServerStreaming<In, Out>(
  client: Client,
  method: CallableMethod<In, Out>,
  request: In,
  options: CallOptions = {},
): ServerStream<Out> {
  const bytes = method.requestSerialize(request);
  const { path, responseDeserialize } = method;
  const readable = client.makeServerStreamRequest(
    path,
    identity,
    responseDeserialize,
    bytes,
    metadata(options),
    grpcOptions(options),
  );
  return new ServerStream(readable, options.signal);
}

/** A stream in both directions. */
export function callBidi<In, Out>(
  client: Client,
  method: CallableMethod<In, Out>,
  options: CallOptions = {},
): BidiCall<In, Out> {
  const { path, requestSerialize, responseDeserialize } = method;
  const duplex = client.makeBidiStreamRequest(
    path,
    identity,
    responseDeserialize,
    metadata(options),
    grpcOptions(options),
  );
  return new BidiCall(duplex, requestSerialize, options.signal);
}

type Readable<Out> = ReturnType<typeof Client.prototype.makeServerStreamRequest<Buffer, Out>>;
type Duplex<Out> = ReturnType<typeof Client.prototype.makeBidiStreamRequest<Buffer, Out>>;

/** The responses of a call. Whoever stops receiving before the end must cancel it; `for await` does. */
export class ServerStream<Out> {
  readonly #stream: Readable<Out> | Duplex<Out>;
  readonly #inbox: Inbox<Out>;

  constructor(stream: Readable<Out> | Duplex<Out>, signal?: AbortSignal) {
    this.#stream = stream;
    this.#inbox = new Inbox(stream);
    const cancel = () => this.cancel();
    stream.on('end', () => this.#inbox.end());
    stream.on('error', (error: ServiceError) => this.#inbox.fail(fromStatus(error, signal)));
    stream.on('status', () => signal?.removeEventListener('abort', cancel));
    if (signal?.aborted) cancel();
    else signal?.addEventListener('abort', cancel, { once: true });
  }

  /**
   * The next response; undefined when the server has ended the call.
   *
   * @throws PtpError the server's error, or `unavailable`, `deadline_exceeded`, `cancelled`; and `failed_precondition` if
   *   a receive is pending already
   */
  receive(): Promise<Out | undefined> {
    return this.#inbox.receive();
  }

  /** Ends the call: the server's signal is aborted, a pending receive fails with `cancelled`. */
  cancel(): void {
    // a call that is cancelled in the turn in which it began is sent by grpc-js all the same, and nobody ends it then
    setImmediate(() => this.#stream.cancel());
  }

  /** Receives until the end, and cancels the call if the loop is left before. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Out, void, undefined> {
    try {
      yield* this.#inbox;
    } finally {
      this.cancel();
    }
  }
}

/** Messages that may wait to be written. A peer that answers each step keeps it at one. */
const outboxCapacity = 256;

/** A call with messages in both directions. */
export class BidiCall<In, Out> extends ServerStream<Out> {
  readonly #duplex: Duplex<Out>;
  readonly #serialize: (message: In) => Buffer;

  constructor(duplex: Duplex<Out>, serialize: (message: In) => Buffer, signal?: AbortSignal) {
    super(duplex, signal);
    this.#duplex = duplex;
    this.#serialize = serialize;
  }

  /**
   * Sends a message. On a call that has failed it does nothing: `receive` says why.
   *
   * @throws PtpError `resource_exhausted` if the peer has left 256 messages unread; and whatever protobuf-es throws for
   *   a message that does not fit its schema
   */
  send(message: In): void {
    const bytes = this.#serialize(message);
    if (this.#duplex.writableEnded || this.#duplex.destroyed) return;
    if (this.#duplex.writableLength >= outboxCapacity) {
      throw new PtpError('resource_exhausted', `${outboxCapacity} messages are waiting to be sent`);
    }
    this.#duplex.write(bytes);
  }

  /** Says that no more messages will be sent; the server may still answer. */
  close(): void {
    this.#duplex.end();
  }

  /**
   * Ends a call that waits for nothing: says so, and cancels if the server has not ended it in time. Cancelling resets the HTTP/2
   * stream, and Node closes a connection with more than 33 resets a second, after the first 1,000 (`streamResetRate`).
   */
  finish(graceMillis = 5000): void {
    const late = setTimeout(() => this.cancel(), graceMillis);
    late.unref();
    this.#duplex.on('status', () => clearTimeout(late));
    this.close();
  }
}

function metadata({ metadata: entries }: CallOptions): Metadata {
  const result = new Metadata();
  for (const [key, value] of Object.entries(entries ?? {})) result.set(key, value);
  return result;
}

function grpcOptions({ deadlineMs }: CallOptions): GrpcCallOptions {
  return deadlineMs === undefined ? {} : { deadline: Date.now() + deadlineMs };
}
