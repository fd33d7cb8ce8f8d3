/** Receives and times the answers to a call's steps. The answers arrive in the order of the steps. */
export class Answers<T> {
  readonly #receive: () => Promise<T>;
  /** Arrival time of the last answer that a caller waits for. */
  #arrival = Promise.resolve(0);

  constructor(receive: () => Promise<T>) {
    this.#receive = receive;
  }

  /**
   * Returns the next answer and its duration. If a step was sent before the previous answer arrived, its duration
   * counts only from that arrival on.
   *
   * @param sent time at which the step was sent, a `performance.now()` value
   */
  next(sent: number): Promise<{ readonly answer: T; readonly micros: number }> {
    const received = this.#arrival.then(async (previous) => {
      const answer = await this.#receive();
      const arrival = performance.now();
      return { answer, arrival, micros: Math.round((arrival - Math.max(sent, previous)) * 1000) };
    });
    this.#arrival = received.then(({ arrival }) => arrival);
    this.#arrival.catch(() => {}); // The error is reported with the answer.
    return received;
  }
}
