import { PtpError } from '@ptp/protocol/errors';

/**
 * Called for every message of a stream, so that the error, whose stack costs a tenth of a millisecond, is only made when it is needed.
 *
 * @throws PtpError `deadline_exceeded` when the promise has not settled after that time; it is then left to itself
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
