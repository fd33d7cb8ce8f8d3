import { type Client, type CallOptions as GrpcCallOptions, Metadata, type ServiceError } from '@grpc/grpc-js';
import { PtpError, toPtpError } from './errors.ts';
import { MessageQueue } from './message-queue.ts';
import { identity } from './methods.ts';
import { fromStatus } from './status.ts';

/** Options of one call. */
export interface CallOptions {
  /** Signal that cancels the call. The call then fails with the signal's reason as a PtpError. */
  readonly signal?: AbortSignal | undefined;
  /** Time after which the call fails with `deadline_exceeded` on both sides, in milliseconds. */
  readonly deadlineMs?: number | undefined;
  /** Metadata, sent once before the first message. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /** Maximum number of messages waiting to be written to a stream. Default: 256. */
  readonly sendCapacity?: number | undefined;
}

/** Options of a call with messages in both directions. */
export interface BidiOptions<In> extends CallOptions {
  /**
   * Message that makes the server cancel the call. With it, the client cancels without resetting the HTTP/2 stream;
   * after 1,000 resets, servers may close any connection that exceeds 33 resets per second.
   */
  readonly farewell?: In | undefined;
}

/** The properties of a method that a caller needs. */
export interface CallableMethod<In, Out> {
  readonly path: string;
  readonly requestSerialize: (request: In) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => Out;
}

/**
 * Sends one request and receives one response.
 *
 * @throws PtpError the server's error, or `unavailable`, `deadline_exceeded`, `cancelled`
 */
export function callUnary<In, Out>(
  client: Client,
  { path, requestSerialize, responseDeserialize }: CallableMethod<In, Out>,
  request: In,
  options: CallOptions = {},
): Promise<Out> {
  const { signal } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) throw toPtpError(signal.reason);
    const bytes = requestSerialize(request);
    const cancel = () => call.cancel();
    const onResponse = (error: ServiceError | null, response?: Out) => {
      signal?.removeEventListener('abort', cancel);
      if (error) reject(fromStatus(error, signal));
      else resolve(response as Out);
    };
    const call = client.makeUnaryRequest(
      path,
      identity,
      responseDeserialize,
      bytes,
      ...grpcOptions(options),
      onResponse,
    );
    signal?.addEventListener('abort', cancel, { once: true });
  });
}

/** Sends one request and receives many responses. */
export function callServerStreaming<In, Out>(
  client: Client,
  { path, requestSerialize, responseDeserialize }: CallableMethod<In, Out>,
  request: In,
  options: CallOptions = {},
): ServerStream<Out> {
  const bytes = requestSerialize(request);
  const stream = client.makeServerStreamRequest(path, identity, responseDeserialize, bytes, ...grpcOptions(options));
  return new ServerStream(stream, options.signal);
}

/** Opens a stream in both directions. */
export function callBidi<In, Out>(
  client: Client,
  { path, requestSerialize, responseDeserialize }: CallableMethod<In, Out>,
  options: BidiOptions<In> = {},
): BidiCall<In, Out> {
  const duplex = client.makeBidiStreamRequest(path, identity, responseDeserialize, ...grpcOptions(options));
  return new BidiCall(duplex, requestSerialize, options);
}

function grpcOptions({ metadata = {}, deadlineMs }: CallOptions): [Metadata, GrpcCallOptions] {
  const entries = new Metadata();
  for (const [key, value] of Object.entries(metadata)) entries.set(key, value);
  return [entries, deadlineMs === undefined ? {} : { deadline: Date.now() + deadlineMs }];
}

type Readable<Out> = ReturnType<typeof Client.prototype.makeServerStreamRequest<Buffer, Out>>;
type Duplex<Out> = ReturnType<typeof Client.prototype.makeBidiStreamRequest<Buffer, Out>>;

/**
 * The responses of a call. A caller that stops receiving before the end must cancel the call; `for await` does this
 * automatically.
 */
export class ServerStream<Out> {
  readonly #stream: Readable<Out> | Duplex<Out>;
  readonly #queue: MessageQueue<Out>;

  constructor(stream: Readable<Out> | Duplex<Out>, signal?: AbortSignal) {
    this.#stream = stream;
    this.#queue = new MessageQueue(stream);
    const cancel = () => this.cancel();
    stream.on('end', () => this.#queue.end());
    stream.on('error', (error: ServiceError) => this.#queue.fail(fromStatus(error, signal)));
    stream.on('status', () => signal?.removeEventListener('abort', cancel));
    // A subclass's `cancel` works only after its constructor has ended.
    if (signal?.aborted) queueMicrotask(cancel);
    else signal?.addEventListener('abort', cancel, { once: true });
  }

  /**
   * Returns the next response, or undefined once the server has ended the call.
   *
   * @throws PtpError the server's error, or `unavailable`, `deadline_exceeded`, `cancelled`; `failed_precondition` if
   *   another receive is pending
   */
  receive(): Promise<Out | undefined> {
    return this.#queue.receive();
  }

  /** Ends the call: the server's signal is aborted, and a pending receive fails with `cancelled`. */
  cancel(): void {
    // If a call is cancelled in the event-loop turn in which it starts, grpc-js still sends it, and the call never
    // ends.
    setImmediate(() => this.#stream.cancel());
  }

  /** Drops all further responses, and fails a pending receive. */
  protected abandon(reason: PtpError): void {
    this.#queue.fail(reason);
    this.#stream.resume();
  }

  /** Yields responses until the call ends. Cancels the call if the loop exits early. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Out, void, undefined> {
    try {
      yield* this.#queue;
    } finally {
      this.cancel();
    }
  }
}

/** Time in milliseconds that a server has to end a call before the call is reset. */
const GRACE_MS = 5000;

/** Default of `sendCapacity`. If the peer answers each step, at most one message waits. */
const SEND_CAPACITY = 256;

/** A call with messages in both directions. */
export class BidiCall<In, Out> extends ServerStream<Out> {
  readonly #duplex: Duplex<Out>;
  readonly #serialize: (message: In) => Buffer;
  readonly #capacity: number;
  readonly #options: BidiOptions<In>;
  #finishing = false;
  #ended = false;

  constructor(duplex: Duplex<Out>, serialize: (message: In) => Buffer, options: BidiOptions<In> = {}) {
    super(duplex, options.signal);
    this.#duplex = duplex;
    this.#serialize = serialize;
    this.#capacity = options.sendCapacity ?? SEND_CAPACITY;
    this.#options = options;
    duplex.on('status', () => {
      this.#ended = true;
    });
  }

  /** Ends the call like {@link ServerStream.cancel}, but without resetting the stream if there is a farewell. */
  override cancel(): void {
    const { farewell, signal } = this.#options;
    if (farewell === undefined || this.#ended) {
      super.cancel();
      return;
    }
    this.abandon(signal?.aborted ? toPtpError(signal.reason) : new PtpError('cancelled', 'the request was cancelled'));
    if (this.#finishing) return;
    this.#duplex.write(this.#serialize(farewell));
    this.finish();
  }

  /**
   * Sends a message. Does nothing if the call has failed; `receive` then throws the call's error.
   *
   * @throws PtpError `resource_exhausted` if the peer has left `sendCapacity` messages unread. A message that does not
   *   fit its schema throws protobuf-es's own error.
   */
  send(message: In): void {
    const bytes = this.#serialize(message);
    if (this.#duplex.writableEnded || this.#duplex.destroyed) return;
    if (this.#duplex.writableLength >= this.#capacity) {
      throw new PtpError('resource_exhausted', `the peer has left ${this.#capacity} messages unread`);
    }
    this.#duplex.write(bytes);
  }

  /** Closes the sending side. The server may still send responses. */
  close(): void {
    this.#duplex.end();
  }

  /**
   * Ends an idle call: closes the sending side, and resets the stream if the server has not ended the call within
   * `graceMillis`. Later calls have no effect.
   */
  finish(graceMillis = GRACE_MS): void {
    if (this.#finishing) return;
    this.#finishing = true;
    const timer = setTimeout(() => super.cancel(), graceMillis);
    timer.unref();
    this.#duplex.on('status', () => clearTimeout(timer));
    this.close();
  }
}
