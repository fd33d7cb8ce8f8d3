import { PtpError } from '@ptp/core/errors.ts';

/** @throws PtpError `deadline_exceeded` when the promise has not settled after that time; it is then left to itself */
export async function within<T>(milliseconds: number, what: string, promise: Promise<T>): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const error = new PtpError('deadline_exceeded', `${what} has not answered for ${milliseconds} ms`);
  const timer = setTimeout(() => reject(error), milliseconds);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
