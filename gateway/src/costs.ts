/** What the controller has measured of the machine and of the drafter. Times in microseconds; older observations fade. */

/** Share by which older observations count less with each new one. */
const FORGET = 0.02;
/** Observations before an outlier can be told. */
const SETTLED = 8;
/** More than so many times what is expected is the machine's hiccup, and counts as that much. */
const OUTLIER = 3;

/** Time as a line over a number of tokens, a + b n. */
export class Line {
  #weight = 0;
  #n = 0;
  #y = 0;
  #nn = 0;
  #ny = 0;

  observe(n: number, micros: number): void {
    const y = this.#weight >= SETTLED ? Math.min(micros, OUTLIER * this.at(n)) : micros;
    const keep = 1 - FORGET;
    this.#weight = keep * this.#weight + 1;
    this.#n = keep * this.#n + n;
    this.#y = keep * this.#y + y;
    this.#nn = keep * this.#nn + n * n;
    this.#ny = keep * this.#ny + n * y;
  }

  /** Whether anything has been observed. */
  get known(): boolean {
    return this.#weight > 0;
  }

  /** b, at least 0; undefined while all observations were of the same n. */
  get slope(): number | undefined {
    const variance = this.#weight * this.#nn - this.#n ** 2;
    if (variance < 0.01 * this.#weight ** 2) return undefined;
    return Math.max(0, (this.#weight * this.#ny - this.#n * this.#y) / variance);
  }

  /** The expected time of n tokens; 0 before any observation. */
  at(n: number): number {
    if (!this.known) return 0;
    const mean = this.#y / this.#weight;
    return Math.max(0, mean + (this.slope ?? 0) * (n - this.#n / this.#weight));
  }
}

/** Classes of confidence that are told apart. */
const BINS = 10;
/** How many observations the assumption weighs that a confidence is the chance of being right. */
const PRIOR = 20;

/**
 * The chance that a token is right, by the drafter's confidence in it: two near distributions that pick by the same uniforms agree
 * more often than a token's probability says.
 */
export class Calibration {
  readonly #right = new Float64Array(BINS).map((_, i) => (PRIOR * (i + 0.5)) / BINS);
  readonly #all = new Float64Array(BINS).fill(PRIOR);

  /** A token whose predecessors in the block were right. */
  observe(confidence: number, right: boolean): void {
    const bin = binOf(confidence);
    const keep = 1 - FORGET / 4;
    this.#right[bin] = keep * (this.#right[bin] as number) + Number(right);
    this.#all[bin] = keep * (this.#all[bin] as number) + 1;
  }

  chance(confidence: number): number {
    const bin = binOf(confidence);
    return (this.#right[bin] as number) / (this.#all[bin] as number);
  }
}

const binOf = (confidence: number): number => Math.min(BINS - 1, Math.floor(confidence * BINS));

/** The chance that the first k tokens of a block are all right. */
export class Reach {
  readonly #chances: number[];
  readonly #forget: number;

  /** @param start of which this is a copy that goes its own way; else one starts from what a fair drafter does */
  constructor(longest: number, forget = FORGET, start?: Reach) {
    this.#chances = Array.from({ length: longest + 1 }, (_, k) => start?.chance(k) ?? 0.7 ** k);
    this.#forget = forget;
  }

  /** @param drafted tokens of a block @param accepted how many were right before the first wrong one */
  observe(drafted: number, accepted: number): void {
    for (let k = 1; k <= drafted && k < this.#chances.length; k++) {
      const old = this.#chances[k] as number;
      this.#chances[k] = old + this.#forget * (Number(accepted >= k) - old);
    }
  }

  chance(k: number): number {
    return this.#chances[k] ?? 0;
  }

  /** Expected number of right tokens in a block of n. */
  expected(n: number): number {
    return this.#chances.slice(1, n + 1).reduce((sum, chance) => sum + chance, 0);
  }
}
