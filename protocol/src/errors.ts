/** Error codes. Each code determines the gRPC status, the HTTP status and the OpenAI error type. */
export type ErrorCode =
  | 'invalid_argument'
  | 'not_found'
  | 'out_of_range'
  | 'resource_exhausted'
  | 'unavailable'
  | 'deadline_exceeded'
  | 'cancelled'
  | 'failed_precondition'
  | 'internal'
  | 'unauthenticated';

/** Statuses of one error code. */
export interface WireError {
  /** gRPC status code number (https://grpc.io/docs/guides/status-codes/). */
  readonly grpc: number;
  /** HTTP status, as google/rpc/code.proto pairs it with the gRPC code. */
  readonly http: number;
  /** `error.type` in the body of an OpenAI API error. */
  readonly openai: string;
}

/** Statuses of all error codes. Nothing else in the project chooses a status. */
export const wireErrors: Readonly<Record<ErrorCode, WireError>> = {
  cancelled: { grpc: 1, http: 499, openai: 'request_cancelled' },
  invalid_argument: { grpc: 3, http: 400, openai: 'invalid_request_error' },
  deadline_exceeded: { grpc: 4, http: 504, openai: 'timeout_error' },
  not_found: { grpc: 5, http: 404, openai: 'not_found_error' },
  resource_exhausted: { grpc: 8, http: 429, openai: 'rate_limit_error' },
  failed_precondition: { grpc: 9, http: 400, openai: 'invalid_request_error' },
  out_of_range: { grpc: 11, http: 400, openai: 'invalid_request_error' },
  internal: { grpc: 13, http: 500, openai: 'server_error' },
  unavailable: { grpc: 14, http: 503, openai: 'server_error' },
  unauthenticated: { grpc: 16, http: 401, openai: 'authentication_error' },
};

interface ErrorOptions {
  readonly field?: string;
  readonly retryAfterMs?: number;
  readonly cause?: unknown;
}

/**
 * The project's only error class. Clients see the message unless the code is `internal`. A message therefore names the
 * field, the limit and the actual value, but never a path, a host or another user's data. The `cause` is for logs only.
 */
export class PtpError extends Error {
  override readonly name = 'PtpError';
  readonly code: ErrorCode;
  /** Name of the invalid request field or setting, as the sender spells it, for example `top_p` or `PTP_LOG_LEVEL`. */
  readonly field: string | undefined;
  /** Time in milliseconds after which a retry can succeed, if known. */
  readonly retryAfterMs: number | undefined;

  constructor(code: ErrorCode, message: string, options: ErrorOptions = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.code = code;
    this.field = options.field;
    this.retryAfterMs = options.retryAfterMs;
  }
}

/**
 * Creates the error for a file or folder of a model that cannot be used. `problem` follows the path in the message.
 */
export function unusable(path: string, problem: string, cause?: unknown): PtpError {
  return new PtpError('failed_precondition', `\`${path}\` ${problem}`, cause === undefined ? {} : { cause });
}

/**
 * Converts any thrown value to a PtpError. An AbortSignal's reasons become `cancelled` and `deadline_exceeded`; anything
 * else becomes `internal`, with the thrown value as its cause.
 */
export function toPtpError(error: unknown): PtpError {
  if (error instanceof PtpError) return error;
  const name = error instanceof Error ? error.name : undefined;
  if (name === 'AbortError') return new PtpError('cancelled', 'the request was cancelled', { cause: error });
  if (name === 'TimeoutError') return new PtpError('deadline_exceeded', 'the deadline has passed', { cause: error });
  return new PtpError('internal', 'internal error', { cause: error });
}

/**
 * Returns the message that clients see. Unexpected errors and those with code `internal` become "internal error",
 * without details.
 */
export function publicMessage(error: unknown): string {
  const { code, message } = toPtpError(error);
  return code === 'internal' ? 'internal error' : message;
}

/** Returns the error code for a gRPC status number. Statuses that our servers never send become `internal`. */
export function codeFromGrpc(status: number): ErrorCode {
  for (const [code, wire] of Object.entries(wireErrors)) {
    if (wire.grpc === status) return code as ErrorCode;
  }
  return 'internal';
}
