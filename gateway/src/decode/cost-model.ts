/** What the controller has measured of the machine and of the drafter. Times in microseconds; older observations fade. */

/** Share by which older observations count less with each new one. */
const FORGET = 0.02;
/** Observations before an outlier can be told. */
const SETTLED = 8;
/** More than so many times what is expected is the machine's hiccup, and counts as that much. */
const OUTLIER = 3;

/** Variance of n below which nothing is said of a slope. */
const SAME = 0.001;

/** Time as a line over a number of tokens, a + b n. */
export class LinearCost {
  #weight = 0;
  #n = 0;
  #y = 0;
  #nn = 0;
  #ny = 0;

  /** @param weight of the observation, in (0, 1] */
  observe(n: number, micros: number, weight = 1): void {
    const y = this.#weight >= SETTLED ? Math.min(micros, OUTLIER * this.at(n)) : micros;
    const keep = 1 - FORGET * weight;
    this.#weight = keep * this.#weight + weight;
    this.#n = keep * this.#n + weight * n;
    this.#y = keep * this.#y + weight * y;
    this.#nn = keep * this.#nn + weight * n * n;
    this.#ny = keep * this.#ny + weight * n * y;
  }

  /** Whether anything has been observed. */
  get known(): boolean {
    return this.#weight > 0;
  }

  /** b, at least 0; undefined while all observations were of the same n. */
  get slope(): number | undefined {
    const variance = this.#weight * this.#nn - this.#n ** 2;
    if (variance < SAME * this.#weight ** 2) return undefined;
    return Math.max(0, (this.#weight * this.#ny - this.#n * this.#y) / variance);
  }

  /** Over all observations; 0 before any. */
  get mean(): number {
    return this.known ? this.#y / this.#weight : 0;
  }

  /** The expected time of n tokens; 0 before any observation. */
  at(n: number): number {
    if (!this.known) return 0;
    return Math.max(0, this.mean + (this.slope ?? 0) * (n - this.#n / this.#weight));
  }
}

/** A verify call; microseconds. */
export interface VerifyTime {
  /** As the gateway saw it, network and queue included. */
  readonly micros: number;
  readonly queueMicros: number;
  /** The engine run, which `batchSize` sequences shared, and the tokens drafted for each of them, in the mean. */
  readonly runMicros: number;
  readonly batchSize: number;
  readonly drafted: number;
}

/**
 * Time of a verify call by the tokens drafted, when all sequences of its run have as many. In a large batch one sequence's tokens seem
 * to cost nothing; but all choose by the same rule, so what one more token costs is what it costs when all have it. A run that
 * takes longer also keeps the sequences waiting that are not in it.
 */
export class VerifyCost {
  readonly #longest: number;
  readonly #run = new LinearCost();
  readonly #queue = new LinearCost();
  /** What is neither queue nor run. */
  readonly #outside = new LinearCost();

  /** @param longest block, in tokens */
  constructor(longest: number) {
    this.#longest = longest;
  }

  observe({ micros, queueMicros, runMicros, batchSize, drafted }: VerifyTime): void {
    // each of a run's sequences tells of it
    const weight = 1 / batchSize;
    this.#queue.observe(0, queueMicros, weight);
    this.#outside.observe(0, Math.max(0, micros - queueMicros - runMicros), weight);
    // a run with a part of some prompt
    if (drafted <= this.#longest) this.#run.observe(drafted, runMicros, weight);
  }

  get known(): boolean {
    return this.#run.known;
  }

  /** Of each token more. */
  get slope(): number | undefined {
    const { slope } = this.#run;
    return slope === undefined ? undefined : this.#waiting() * slope;
  }

  at(n: number): number {
    return this.#outside.at(0) + this.#waiting() * this.#run.at(n);
  }

  /** Runs that a call takes, waiting for those before its own included. */
  #waiting(): number {
    const run = this.#run.mean;
    return run > 0 ? 1 + this.#queue.at(0) / run : 1;
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
export class AcceptanceCurve {
  readonly #chances: number[];
  readonly #forget: number;

  /** @param start of which this is a copy that goes its own way; else one starts from what a fair drafter does */
  constructor(longest: number, forget = FORGET, start?: AcceptanceCurve) {
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
