import { type ErrorCode, toPtpError } from '@ptp/protocol/errors';

/** Hears of each request that is refused for want of room or of a key. */
export type OnRefusal = (code: ErrorCode) => void;

/** Tells of an error that is such a refusal. */
export function tellRefusal(error: unknown, onRefusal: OnRefusal | undefined): void {
  const { code } = toPtpError(error);
  if (code === 'resource_exhausted' || code === 'unauthenticated') onRefusal?.(code);
}
