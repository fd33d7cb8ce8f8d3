interface Event {
  readonly at: number;
  readonly run: () => void;
}

/** Virtual time in microseconds. Events due at the same time run in the order in which they were scheduled. */
export class Clock {
  #now = 0;
  /**
   * Events in descending order of time, so that the next event is last. Most new events are due soon, so inserting them
   * moves few others.
   */
  readonly #events: Event[] = [];

  get now(): number {
    return this.#now;
  }

  /** Schedules an event. @param at time in microseconds, not earlier than `now` */
  at(at: number, run: () => void): void {
    let [low, high] = [0, this.#events.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#events[middle] as Event).at > at) low = middle + 1;
      else high = middle;
    }
    this.#events.splice(low, 0, { at, run });
  }

  /** Runs all events due before `end`, then sets the time to `end`. */
  runUntil(end: number): void {
    for (let next = this.#events.at(-1); next && next.at < end; next = this.#events.at(-1)) {
      this.#events.pop();
      this.#now = next.at;
      next.run();
    }
    this.#now = end;
  }
}
