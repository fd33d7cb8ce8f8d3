import { choice, type DfaState, type Expression, literal, sequence } from './expression.ts';

/** Range of numbers that are written without an exponent. */
export interface NumberRange {
  /** May be -Infinity. */
  readonly min: number;
  /** May be Infinity. */
  readonly max: number;
  /** True to exclude `min` itself. */
  readonly exclusiveMin: boolean;
  /** True to exclude `max` itself. */
  readonly exclusiveMax: boolean;
  /** True to allow only integers. */
  readonly integer: boolean;
  /** Positive integer of which all numbers must be multiples. Values other than 1 require `integer`. */
  readonly multipleOf: number;
}

/** Maximum number of digits after the decimal point, unless a limit has more: the precision of a double. */
const FRACTION_DIGITS = 15;
/** Maximum number of digits before the decimal point if the range has no upper limit. */
const INTEGER_DIGITS = 15;

/** Matches a JSON number in the range. Returns undefined if the range is empty. */
export function numberInRange(range: NumberRange): Expression | undefined {
  const { min, max, exclusiveMin, exclusiveMax } = range;
  const upper = nonNegative({ ...range, min: Math.max(0, min), exclusiveMin: min >= 0 && exclusiveMin });
  const negative = min < 0 && (max >= 0 ? { ...range, min: 0, exclusiveMin: true } : mirrored(range));
  const lower = negative && nonNegative({ ...negative, max: -min, exclusiveMax: exclusiveMin });
  const options = [
    ...(max > 0 || (max === 0 && !exclusiveMax) ? [upper] : []),
    ...(lower ? [sequence(literal('-'), lower)] : []),
  ];
  const possible = options.filter((option) => option !== undefined);
  return possible.length > 0 ? choice(...possible) : undefined;
}

const mirrored = (range: NumberRange): NumberRange => ({
  ...range,
  min: -range.max,
  exclusiveMin: range.exclusiveMax,
});

/** Digits read so far. */
interface Prefix {
  /** Value in units of 10^-`places`. */
  readonly value: bigint;
  /** Number of digits before the decimal point. */
  readonly digits: number;
  /** Number of digits after the decimal point. Undefined if there has been no point yet. */
  readonly fraction: number | undefined;
}

/**
 * Matches the numbers of a range with min >= 0, without a sign. The DFA allows a digit if some number of the range
 * starts with the digits so far and this digit. Two states are equal if their prefixes have the same length, the same
 * order relative to both limits, and the same remainder.
 */
function nonNegative(range: NumberRange): DfaState | undefined {
  const limits = [range.min, range.max].filter(Number.isFinite);
  // Maximum number of digits after the decimal point.
  const places = Math.max(FRACTION_DIGITS, ...limits.map((limit) => decimalOf(limit).places + 1));
  const unit = 10n ** BigInt(places);
  // A text is read as the nearest double, so an exclusive limit allows texts up to the double next to it.
  const min = -scaled(-1n, decimalOf(range.exclusiveMin ? neighbour(range.min, 1n) : range.min), places);
  const highest = range.exclusiveMax && range.max > 0 ? neighbour(range.max, -1n) : range.max;
  const max = highest === Number.POSITIVE_INFINITY ? undefined : scaled(1n, decimalOf(highest), places);
  const maxDigits =
    max === undefined ? Math.max(INTEGER_DIGITS, String(min / unit).length + 1) : String(max / unit).length;
  const factor = BigInt(range.multipleOf) * unit;
  const states = new Map<string, DfaState | undefined>();
  return stateOf({ value: 0n, digits: 0, fraction: undefined });

  function stateOf(prefix: Prefix): DfaState | undefined {
    const key = keyOf(prefix);
    if (!states.has(key)) {
      const accepting = isComplete(prefix);
      const possible = accepting || canContinue(prefix);
      states.set(key, possible ? { kind: 'dfa', accepting, next: (byte) => next(prefix, byte) } : undefined);
    }
    return states.get(key);
  }

  function next({ value, digits, fraction }: Prefix, byte: number): DfaState | undefined {
    if (byte === 0x2e) {
      const allowed = !range.integer && digits > 0 && fraction === undefined;
      return allowed ? stateOf({ value, digits, fraction: 0 }) : undefined;
    }
    const digit = byte - 0x30;
    if (digit < 0 || digit > 9) return undefined;
    if (fraction !== undefined) {
      if (fraction === places) return undefined;
      const place = 10n ** BigInt(places - 1 - fraction);
      return stateOf({ value: value + BigInt(digit) * place, digits, fraction: fraction + 1 });
    }
    const leadingZero = digits === 1 && value === 0n;
    if (digits === maxDigits || leadingZero) return undefined;
    return stateOf({ value: value * 10n + BigInt(digit) * unit, digits: digits + 1, fraction });
  }

  function isComplete({ value, digits, fraction }: Prefix): boolean {
    return digits > 0 && fraction !== 0 && inRange(value) && (!range.integer || value % factor === 0n);
  }

  function inRange(value: bigint): boolean {
    return value >= min && (max === undefined || value <= max);
  }

  /** Returns true if a longer number of the range starts with the prefix. */
  function canContinue({ value, digits, fraction }: Prefix): boolean {
    if (fraction !== undefined) {
      return fraction < places && intersects(value, value + 10n ** BigInt(places - fraction) - 1n);
    }
    if (digits > 0 && !range.integer && intersects(value, value + unit - 1n)) return true;
    if (digits === 1 && value === 0n) return false;
    for (let more = 1; digits + more <= maxDigits; more++) {
      const power = 10n ** BigInt(more);
      if (intersects(value * power, (value + unit) * power - (range.integer ? unit : 1n))) return true;
    }
    return false;
  }

  /** Returns true if [from, to] contains a number of the range. */
  function intersects(from: bigint, to: bigint): boolean {
    const step = range.integer ? factor : 1n;
    const low = larger(from, min);
    const high = max === undefined ? to : smaller(to, max);
    return ((low + step - 1n) / step) * step <= high;
  }

  function keyOf({ value, digits, fraction }: Prefix): string {
    const limits = [min, max].map((limit) => (limit === undefined ? 0 : compare(value, digits, fraction, limit)));
    const isZero = digits === 1 && value === 0n;
    return [digits, fraction, isZero, ...limits, range.integer ? value % factor : 0n].join();
  }

  /** Compares the prefix with the limit's prefix of the same length. Returns -1, 0 or 1. */
  function compare(value: bigint, digits: number, fraction: number | undefined, limit: bigint): number {
    const missing = BigInt(Math.max(0, String(limit / unit).length - digits));
    const place = fraction === undefined ? unit * 10n ** missing : 10n ** BigInt(places - fraction);
    const expected = (limit / place) * place;
    const actual = fraction === undefined ? value * 10n ** missing : value;
    return actual < expected ? -1 : actual > expected ? 1 : 0;
  }
}

/** The number digits * 10^-places. */
interface Decimal {
  readonly digits: bigint;
  readonly places: number;
}

/** Returns the decimal form of a limit >= 0, exactly as JavaScript prints it. */
function decimalOf(limit: number): Decimal {
  const [mantissa = '0', exponent = '0'] = String(limit).split('e');
  const [whole = '0', fraction = ''] = mantissa.split('.');
  const places = fraction.length - Number(exponent);
  return { digits: BigInt(whole + fraction) * 10n ** BigInt(Math.max(0, -places)), places: Math.max(0, places) };
}

/** Returns sign * number in units of 10^-places, rounded down. */
function scaled(sign: bigint, { digits, places: own }: Decimal, places: number): bigint {
  if (own <= places) return sign * digits * 10n ** BigInt(places - own);
  const divisor = 10n ** BigInt(own - places);
  return sign < 0n ? -((digits + divisor - 1n) / divisor) : digits / divisor;
}

/** Returns the next larger (`step` 1) or smaller (-1) double of a number >= 0. */
function neighbour(number: number, step: bigint): number {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, number);
  view.setBigUint64(0, view.getBigUint64(0) + step);
  return view.getFloat64(0);
}

const larger = (a: bigint, b: bigint): bigint => (a > b ? a : b);
const smaller = (a: bigint, b: bigint): bigint => (a < b ? a : b);
