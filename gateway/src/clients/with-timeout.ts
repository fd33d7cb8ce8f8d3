import { PtpError } from '@ptp/protocol/errors';

/**
 * Rejects when a promise takes too long. Runs for every message, so the error, whose stack costs 0.1 ms, is made only when needed.
 *
 * @throws PtpError `deadline_exceeded` if the promise has not settled after that time
 */
export function withTimeout<T>(milliseconds: number, what: string, promise: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new PtpError('deadline_exceeded', `${what} has not answered for ${milliseconds} ms`));
    }, milliseconds);
    promise.then(
      (value) => {
        clearTimeout(timer);
        resolve(value);
      },
      (error) => {
        clearTimeout(timer);
        reject(error);
      },
    );
  });
}
