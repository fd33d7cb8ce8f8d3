import { PtpError } from '@ptp/protocol/errors';

/** Creates an error about the engine that the setting PTP_ENGINE names. */
export function startError(message: string, cause?: unknown): PtpError {
  return new PtpError('failed_precondition', `PTP_ENGINE: ${message}`, { field: 'PTP_ENGINE', cause });
}
