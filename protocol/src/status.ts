import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { anyPack, anyUnpack, durationFromMs } from '@bufbuild/protobuf/wkt';
import { Metadata, type ServiceError, type StatusObject } from '@grpc/grpc-js';
import { codeFromGrpc, type ErrorCode, PtpError, publicMessage, toPtpError, wireErrors } from './errors.ts';
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from './gen/google/rpc/error_details_pb.ts';
import { StatusSchema } from './gen/google/rpc/status_pb.ts';

/**
 * Name of the trailer that carries a google.rpc.Status: the invalid field, the retry delay, and an ErrorInfo whose
 * domain shows that the error comes from one of our servers.
 */
const TRAILER = 'grpc-status-details-bin';
const DOMAIN = 'ptp';
/** Maximum lengths of a message and of a field name, in characters. Clients accept only a few KiB of trailers. */
const MESSAGE_LIMIT = 400;
const FIELD_LIMIT = 200;

/** Converts any thrown value to the status that ends a call. Unforeseen errors become "internal error" without details. */
export function toStatus(error: unknown): StatusObject {
  const { code, field: fullField, retryAfterMs } = toPtpError(error);
  const message = truncate(publicMessage(error), MESSAGE_LIMIT);
  const details = [];
  if (fullField !== undefined) {
    const violation = { field: truncate(fullField, FIELD_LIMIT), description: message };
    details.push(anyPack(BadRequestSchema, create(BadRequestSchema, { fieldViolations: [violation] })));
  }
  if (retryAfterMs !== undefined) {
    const retryDelay = durationFromMs(retryAfterMs);
    details.push(anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay })));
  }
  details.push(anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { reason: code, domain: DOMAIN })));
  const { grpc } = wireErrors[code];
  const metadata = new Metadata();
  const status = create(StatusSchema, { code: grpc, message, details });
  metadata.set(TRAILER, Buffer.from(toBinary(StatusSchema, status)));
  return { code: grpc, details: message, metadata };
}

/** Truncates a text and replaces lone surrogates, which have no UTF-8 encoding. */
function truncate(text: string, length: number): string {
  return (text.length > length ? `${text.slice(0, length)}...` : text).toWellFormed();
}

/**
 * Converts a failed call to a PtpError whose cause is the gRPC error. A message from our own servers is kept. A message
 * from the transport contains addresses, so it appears only in the cause.
 *
 * @param signal the call's signal; if the signal cancelled the call, its reason becomes the error
 */
export function fromStatus(error: ServiceError, signal?: AbortSignal): PtpError {
  const details = serverDetails(error);
  const received = codeFromGrpc(error.code);
  // INTERNAL without our trailer means a connection failure (a corrupted TLS record, for example).
  const code = received === 'internal' && !details ? 'unavailable' : received;
  if (signal?.aborted && code === 'cancelled') return toPtpError(signal.reason);
  const message = details ? error.details : (transportMessages[code] ?? error.details);
  return new PtpError(code, message, { cause: error, ...details });
}

/** Returns the details of an error that one of our servers sent, and undefined for any other error. */
function serverDetails({ metadata }: ServiceError): { readonly field?: string } | undefined {
  const bytes = (metadata as Metadata | undefined)?.get(TRAILER)[0];
  if (!(bytes instanceof Buffer)) return undefined;
  try {
    const { details } = fromBinary(StatusSchema, bytes);
    if (!details.some((detail) => anyUnpack(detail, ErrorInfoSchema)?.domain === DOMAIN)) return undefined;
    const field = details.map((detail) => anyUnpack(detail, BadRequestSchema)?.fieldViolations[0]?.field).find(Boolean);
    return field === undefined ? {} : { field };
  } catch {
    return undefined; // The trailer is not a google.rpc.Status.
  }
}

const transportMessages: Partial<Record<ErrorCode, string>> = {
  unavailable: 'the service cannot be reached',
  deadline_exceeded: 'the deadline has passed',
  cancelled: 'the request was cancelled',
};
