import { create, toBinary } from '@bufbuild/protobuf';
import { type Any, anyPack, durationFromMs } from '@bufbuild/protobuf/wkt';
import { Metadata, type ServiceError, type StatusObject } from '@grpc/grpc-js';
import { codeFromGrpc, PtpError, publicMessage, toPtpError, wireErrors } from './errors.ts';
import { BadRequestSchema, RetryInfoSchema } from './gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from './gen/google/rpc/status_pb.ts';

/** Trailer that tells our servers' errors, whose text is fit for clients, from those of the transport. */
const marker = 'ptp-error';
/** Trailer with PtpError's `field`, which may be a name of the client's own: percent-encoded where it is not ASCII. */
const fieldTrailer = 'ptp-field';
/** Characters told of a message and of a field: clients take trailers of a few KiB. */
const MOST_MESSAGE = 400;
const MOST_FIELD = 200;

/** Any thrown value as the status that ends a call. Errors that we did not foresee say "internal error" and no more. */
export function toStatus(error: unknown): StatusObject {
  const { code, field: whole, retryAfterMs } = toPtpError(error);
  const metadata = new Metadata();
  metadata.set(marker, code);
  const field = whole === undefined ? undefined : start(whole, MOST_FIELD);
  if (field !== undefined) metadata.set(fieldTrailer, encodeField(field));
  const details = start(publicMessage(error), MOST_MESSAGE);
  const rich = richDetails(field, retryAfterMs, details);
  if (rich.length > 0) {
    const status = create(StatusSchema, { code: wireErrors[code].grpc, message: details, details: rich });
    metadata.set('grpc-status-details-bin', Buffer.from(toBinary(StatusSchema, status)));
  }
  return { code: wireErrors[code].grpc, details, metadata };
}

/** The beginning of a text, without lone surrogates: these have no UTF-8. */
function start(text: string, length: number): string {
  return (text.length > length ? `${text.slice(0, length)}...` : text).toWellFormed();
}

function encodeField(field: string): string {
  return field.replace(/[^ -~]|%/gu, encodeURIComponent);
}

/** What clients find in an error beside its message: the field at fault, and when to try again (google/rpc/error_details.proto). */
function richDetails(field: string | undefined, retryAfterMs: number | undefined, description: string): Any[] {
  const details: Any[] = [];
  if (field !== undefined) {
    details.push(anyPack(BadRequestSchema, create(BadRequestSchema, { fieldViolations: [{ field, description }] })));
  }
  if (retryAfterMs !== undefined) {
    const retryDelay = durationFromMs(retryAfterMs);
    details.push(anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay })));
  }
  return details;
}

/**
 * A call's failure as a PtpError with the gRPC error as its cause. The text of our own servers is kept; what the
 * transport says names addresses, so it stays in the cause.
 *
 * @param signal of the call: if it was aborted, its reason says why
 */
export function fromStatus(error: ServiceError, signal?: AbortSignal): PtpError {
  const trailers = error.metadata as Metadata | undefined;
  const ours = (trailers?.get(marker).length ?? 0) > 0;
  const told = codeFromGrpc(error.code);
  // what our servers do not say is the connection's own failure, whatever it calls it (INTERNAL for a TLS record that was changed)
  const code = told === 'internal' && !ours ? 'unavailable' : told;
  if (signal?.aborted && code === 'cancelled') return toPtpError(signal.reason);
  const field = decodeField(trailers?.get(fieldTrailer)[0]?.toString());
  const message = ours ? error.details : (transportMessages[code] ?? error.details);
  return new PtpError(code, message, { cause: error, ...(field !== undefined && { field }) });
}

/** As it came where it is not percent-encoded well: a peer may say anything. */
function decodeField(encoded: string | undefined): string | undefined {
  try {
    return encoded && decodeURIComponent(encoded);
  } catch {
    return encoded;
  }
}

const transportMessages: Partial<Record<PtpError['code'], string>> = {
  unavailable: 'the service cannot be reached',
  deadline_exceeded: 'the deadline has passed',
  cancelled: 'the request was cancelled',
};
