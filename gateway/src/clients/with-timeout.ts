import { PtpError } from '@ptp/protocol/errors';

/**
 * Rejects if a promise takes too long. This runs for every message, so the error, whose stack costs 0.1 ms, is created
 * only when it is needed.
 *
 * @throws PtpError `deadline_exceeded` if the promise has not settled within `milliseconds`
 */
export function withTimeout<T>(milliseconds: number, what: string, promise: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    reject(new PtpError('deadline_exceeded', `${what} did not answer within ${milliseconds} ms`));
  }, milliseconds);
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
