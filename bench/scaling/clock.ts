import { Random } from '../random.ts';

interface Event {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

/** Virtual time in microseconds. Events due at the same time run in the order in which they were scheduled. */
export class Clock {
  #now = 0;
  #order = 0;
  /** A binary heap whose first element is the next event. */
  readonly #events: Event[] = [];

  get now(): number {
    return this.#now;
  }

  /** Schedules an event. @param at time in microseconds, not earlier than `now` */
  at(at: number, run: () => void): void {
    const event = { at, order: this.#order++, run };
    const events = this.#events;
    let i = events.push(event) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(event, events[parent] as Event)) break;
      events[i] = events[parent] as Event;
      i = parent;
    }
    events[i] = event;
  }

  /** Runs all events due before `end`, then sets the time to `end`. */
  runUntil(end: number): void {
    for (let next = this.#events[0]; next !== undefined && next.at < end; next = this.#events[0]) {
      this.#removeFirst();
      this.#now = next.at;
      next.run();
    }
    this.#now = end;
  }

  #removeFirst(): void {
    const events = this.#events;
    const last = events.pop() as Event;
    if (events.length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= events.length) break;
      if (child + 1 < events.length && before(events[child + 1] as Event, events[child] as Event)) child++;
      if (!before(events[child] as Event, last)) break;
      events[i] = events[child] as Event;
      i = child;
    }
    events[i] = last;
  }
}

const before = (a: Event, b: Event): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);

/** Pseudorandom numbers in [0, 1); neighbouring seeds are independent enough here. */
export function randomNumbers(seed: number): () => number {
  const numbers = new Random(seed);
  return () => numbers.next();
}
