/**
 * Models of cost and acceptance that the controller learns. Times are in microseconds. Older observations lose weight.
 */

/** Share by which each new observation reduces the weight of older ones. */
const FORGET = 0.02;
/** Number of observations after which outliers are detected. */
const SETTLED = 8;
/** Multiple of the expected time at which observed times are capped. */
const OUTLIER = 3;

/** Variance of the number of tokens below which the slope counts as unknown. */
const SAME = 0.001;

/** Sums over pairs (x, y). Older pairs contribute less than newer ones. */
export class DecayedSums {
  weight = 0;
  x = 0;
  y = 0;
  xx = 0;
  xy = 0;
  yy = 0;

  /** @param keep factor by which the weight of earlier pairs is multiplied */
  add(x: number, y: number, keep: number, weight = 1): void {
    this.fade(keep);
    this.weight += weight;
    this.x += weight * x;
    this.y += weight * y;
    this.xx += weight * x * x;
    this.xy += weight * x * y;
    this.yy += weight * y * y;
  }

  fade(keep: number): void {
    this.weight *= keep;
    this.x *= keep;
    this.y *= keep;
    this.xx *= keep;
    this.xy *= keep;
    this.yy *= keep;
  }
}

/** Time y as a linear function of the number of tokens x: y = a + b x. */
export class LinearCost {
  readonly #sums = new DecayedSums();

  /** @param weight weight of the observation, in (0, 1] */
  observe(n: number, micros: number, weight = 1): void {
    const capped = this.#sums.weight >= SETTLED ? Math.min(micros, OUTLIER * this.at(n)) : micros;
    this.#sums.add(n, capped, 1 - FORGET * weight, weight);
  }

  /** True once something has been observed. */
  get known(): boolean {
    return this.#sums.weight > 0;
  }

  /** Cost of one more token (b), at least 0. Undefined while all observations have the same number of tokens. */
  get slope(): number | undefined {
    const { weight, x, y, xx, xy } = this.#sums;
    const variance = weight * xx - x ** 2;
    if (variance < SAME * weight ** 2) return undefined;
    return Math.max(0, (weight * xy - x * y) / variance);
  }

  /** Mean time, or 0 before any observation. */
  get mean(): number {
    return this.known ? this.#sums.y / this.#sums.weight : 0;
  }

  /** Returns the expected time for n tokens, or 0 before any observation. */
  at(n: number): number {
    if (!this.known) return 0;
    return Math.max(0, this.mean + (this.slope ?? 0) * (n - this.#sums.x / this.#sums.weight));
  }
}

/** Duration of a call and of its parts in microseconds. */
export interface CallTime {
  /** Time in flight as measured by the gateway, without the wait for the answer to an earlier call. */
  readonly micros: number;
  readonly queueMicros: number;
  /** Duration of the engine run, which `batchSize` sequences shared. */
  readonly runMicros: number;
  readonly batchSize: number;
}

export interface VerifyTime extends CallTime {
  /** Mean number of drafted tokens per sequence in the run. */
  readonly drafted: number;
}

/**
 * Time of a verify call as a function of the number of drafted tokens per sequence, assuming the same number for all
 * sequences of the run. In a large batch, one more token in one sequence costs almost nothing. But every sequence
 * chooses its length in the same way, so if one sequence drafts another token, they all do, and the cost is that of a
 * token in each of them. A longer run also delays the sequences that wait for the next run.
 */
export class VerifyCost {
  readonly #longest: number;
  readonly #run = new LinearCost();
  readonly #queue = new LinearCost();
  /** Time spent outside of the queue and the run. */
  readonly #outside = new LinearCost();

  /** @param longest maximum number of tokens in a block */
  constructor(longest: number) {
    this.#longest = longest;
  }

  observe({ micros, queueMicros, runMicros, batchSize, drafted }: VerifyTime): void {
    // Every sequence of a run reports the run, so each report gets its share of the weight.
    const weight = 1 / batchSize;
    this.#queue.observe(0, queueMicros, weight);
    this.#outside.observe(0, Math.max(0, micros - queueMicros - runMicros), weight);
    // Longer runs include parts of prompts.
    if (drafted <= this.#longest) this.#run.observe(drafted, runMicros, weight);
  }

  get known(): boolean {
    return this.#run.known;
  }

  /** Cost of one more token. */
  get slope(): number | undefined {
    const { slope } = this.#run;
    return slope === undefined ? undefined : this.#waiting() * slope;
  }

  /** Returns the expected time of a call with n drafted tokens per sequence. */
  at(n: number): number {
    return this.#outside.at(0) + this.#waiting() * this.#run.at(n);
  }

  /** Returns the number of runs that a call spans, including the runs that it waits for. */
  #waiting(): number {
    const run = this.#run.mean;
    return run > 0 ? 1 + this.#queue.at(0) / run : 1;
  }
}

/** Number of confidence classes. */
const BINS = 10;
/** Weight of the prior (acceptance probability = confidence), in observations. */
const PRIOR = 20;

/**
 * Maps a proposer's confidence to the probability of acceptance. The two differ: similar distributions that pick with
 * the same uniforms agree more often than the token's probability suggests.
 */
export class AcceptanceByConfidence {
  readonly #right = new Float64Array(BINS).map((_, i) => (PRIOR * (i + 0.5)) / BINS);
  readonly #all = new Float64Array(BINS).fill(PRIOR);

  /** Observes a token whose predecessors in the block were accepted. */
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

/** Probability that the first k tokens of a block are all accepted. */
export class AcceptanceCurve {
  readonly #chances: number[];
  readonly #forget: number;

  /** @param start initial curve. Default: the curve of a drafter with 70 % acceptance per token */
  constructor(longest: number, forget = FORGET, start?: AcceptanceCurve) {
    this.#chances = Array.from({ length: longest + 1 }, (_, k) => start?.chance(k) ?? 0.7 ** k);
    this.#forget = forget;
  }

  /** Observes a block of `drafted` tokens whose first `accepted` tokens were accepted. */
  observe(drafted: number, accepted: number): void {
    for (let k = 1; k <= drafted && k < this.#chances.length; k++) {
      const old = this.#chances[k] as number;
      this.#chances[k] = old + this.#forget * (Number(accepted >= k) - old);
    }
  }

  chance(k: number): number {
    return this.#chances[k] ?? 0;
  }

  /** Returns the expected number of accepted tokens in a block of n tokens. */
  expected(n: number): number {
    return this.#chances.slice(1, n + 1).reduce((sum, chance) => sum + chance, 0);
  }
}
