import { create, toBinary } from '@bufbuild/protobuf';
import { type Any, anyPack, durationFromMs } from '@bufbuild/protobuf/wkt';
import { Metadata, type ServiceError, type StatusObject } from '@grpc/grpc-js';
import { codeFromGrpc, PtpError, publicMessage, toPtpError, wireErrors } from '../errors.ts';
import { BadRequestSchema, RetryInfoSchema } from '../gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from '../gen/google/rpc/status_pb.ts';

/** Trailer that tells our servers' errors, whose text is fit for clients, from those of the transport. */
const marker = 'ptp-error';
/** Trailer with PtpError's `field`. */
const fieldTrailer = 'ptp-field';

/** Any thrown value as the status that ends a call. Errors that we did not foresee say "internal error" and no more. */
export function toStatus(error: unknown): StatusObject {
  const { code, field } = toPtpError(error);
  const metadata = new Metadata();
  metadata.set(marker, code);
  if (field !== undefined) metadata.set(fieldTrailer, field);
  // grpc-js percent-encodes with encodeURI, which throws on lone surrogates
  const details = publicMessage(error).toWellFormed();
  const rich = richDetails(toPtpError(error), details);
  if (rich.length > 0) {
    const status = create(StatusSchema, { code: wireErrors[code].grpc, message: details, details: rich });
    metadata.set('grpc-status-details-bin', Buffer.from(toBinary(StatusSchema, status)));
  }
  return { code: wireErrors[code].grpc, details, metadata };
}

/** What clients find in an error beside its message: the field at fault, and when to try again (google/rpc/error_details.proto). */
function richDetails({ field, retryAfterMs }: PtpError, description: string): Any[] {
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
  const field = trailers?.get(fieldTrailer)[0]?.toString();
  const message = ours ? error.details : (transportMessages[code] ?? error.details);
  return new PtpError(code, message, { cause: error, ...(field !== undefined && { field }) });
}

const transportMessages: Partial<Record<PtpError['code'], string>> = {
  unavailable: 'the service cannot be reached',
  deadline_exceeded: 'the deadline has passed',
  cancelled: 'the request was cancelled',
};
