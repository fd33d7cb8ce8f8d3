import { choice, type DfaState, type Expression, literal, sequence } from './expression.ts';
import type { Limit, NumberAlternative } from './schema/alternatives.ts';
import { type Decimal, leastCommonMultiple, unitsAt } from './schema/decimal.ts';

/** Maximum number of digits after the decimal point: JSON.stringify writes up to 17 significant digits. */
const FRACTION_DIGITS = 20;
/** Number of decimal places that are allowed beyond the decimal places of the limits. */
const PRECISION = 17;
/** Maximum number of digits before the decimal point if the range has no upper limit. */
const INTEGER_DIGITS = 40;

const numberBytes: readonly number[] = [...Buffer.from('.0123456789')];

/** Range of numbers. Both limits are inclusive and in units of 10^-places. */
interface Interval {
  readonly min: bigint;
  /** Undefined if the range has no upper limit. */
  readonly max: bigint | undefined;
}

/** Matches the numbers of an alternative, written without an exponent. Returns undefined if the range is empty. */
export function numberInRange({ min, max, integer, multipleOf }: NumberAlternative): Expression | undefined {
  const scales = [min?.value.scale ?? 0, max?.value.scale ?? 0];
  const scale = Math.max(...scales);
  const places = Math.max(FRACTION_DIGITS, scale + PRECISION, multipleOf?.scale ?? 0);
  const step = integer ? 10n ** BigInt(places) : 1n;
  const factor = multipleOf ? leastCommonMultiple(unitsAt(multipleOf, places), step) : step;
  const low = min && lowest(min, places, integer);
  const high = max && -lowest({ value: negated(max.value), exclusive: max.exclusive }, places, integer);
  const upper = nonNegative({ min: low !== undefined && low > 0n ? low : 0n, max: high }, places, factor);
  // Zero has no sign.
  const negative = { min: high !== undefined && high < 0n ? -high : 1n, max: low === undefined ? undefined : -low };
  const lower = nonNegative(negative, places, factor);
  const options = [...(upper ? [upper] : []), ...(lower ? [sequence(literal('-'), lower)] : [])];
  return options.length > 0 ? choice(...options) : undefined;
}

const negated = ({ units, scale }: Decimal): Decimal => ({ units: -units, scale });

/**
 * Returns the least number of units that a lower limit allows. If fractions are allowed, an exclusive limit also
 * excludes the numbers that a parser would round to the limit, up to the midpoint between it and the next double.
 */
function lowest({ value, exclusive }: Limit, places: number, integer: boolean): bigint {
  const units = unitsAt(value, places);
  if (!exclusive) return units;
  if (integer || units === 0n) return units + 1n;
  const magnitude = Math.floor(Math.log2(Math.abs(Number(value.units))) - value.scale * Math.log2(10)) - 52;
  const unit = 10n ** BigInt(places);
  const half = magnitude >= 0 ? unit << BigInt(magnitude) : unit >> BigInt(-magnitude);
  return units + half + 1n;
}

/** Digits of a number, read so far. */
interface Prefix {
  /** Value in units of 10^-places. */
  readonly value: bigint;
  /** Number of digits before the decimal point. */
  readonly digits: number;
  /** Number of digits after the decimal point. Undefined before the point. */
  readonly fraction: number | undefined;
}

/**
 * Matches the numbers of an interval with min >= 0 that are multiples of `step`, without a sign. After each prefix, the
 * DFA allows a digit only if a number of the interval starts with the prefix and the digit. Two prefixes lead to the
 * same state if they have the same length, compare to both limits in the same way, and leave the same remainder.
 */
function nonNegative({ min, max }: Interval, places: number, step: bigint): DfaState | undefined {
  const unit = 10n ** BigInt(places);
  const integer = step % unit === 0n;
  if (max !== undefined && max < 0n) return undefined;
  const maxDigits =
    max === undefined ? Math.max(INTEGER_DIGITS, String(min / unit).length + 1) : String(max / unit).length;
  // Multiples of 1.5, for example, need only one decimal place, whatever the limits are.
  let maxPlaces = places;
  while (maxPlaces > 0 && step % 10n ** BigInt(places - maxPlaces + 1) === 0n) maxPlaces--;
  const states = new Map<string, DfaState | undefined>();
  return stateOf({ value: 0n, digits: 0, fraction: undefined });

  function stateOf(prefix: Prefix): DfaState | undefined {
    const key = keyOf(prefix);
    if (!states.has(key)) {
      const accepting = isComplete(prefix);
      const possible = accepting || canContinue(prefix);
      states.set(
        key,
        possible ? { kind: 'dfa', accepting, bytes: numberBytes, next: (byte) => next(prefix, byte) } : undefined,
      );
    }
    return states.get(key);
  }

  function next({ value, digits, fraction }: Prefix, byte: number): DfaState | undefined {
    if (byte === 0x2e) {
      const allowed = !integer && digits > 0 && fraction === undefined;
      return allowed ? stateOf({ value, digits, fraction: 0 }) : undefined;
    }
    const digit = byte - 0x30;
    if (digit < 0 || digit > 9) return undefined;
    if (fraction !== undefined) {
      if (fraction === maxPlaces) return undefined;
      const place = 10n ** BigInt(places - 1 - fraction);
      return stateOf({ value: value + BigInt(digit) * place, digits, fraction: fraction + 1 });
    }
    const leadingZero = digits === 1 && value === 0n;
    if (digits === maxDigits || leadingZero) return undefined;
    return stateOf({ value: value * 10n + BigInt(digit) * unit, digits: digits + 1, fraction });
  }

  function isComplete({ value, digits, fraction }: Prefix): boolean {
    return digits > 0 && fraction !== 0 && value >= min && (max === undefined || value <= max) && value % step === 0n;
  }

  /** Returns true if a longer number of the interval starts with the prefix. */
  function canContinue({ value, digits, fraction }: Prefix): boolean {
    if (fraction !== undefined) {
      return fraction < maxPlaces && intersects(value, value + 10n ** BigInt(places - fraction) - 1n);
    }
    if (digits > 0 && !integer && intersects(value, value + unit - 1n)) return true;
    if (digits === 1 && value === 0n) return false;
    for (let more = 1; digits + more <= maxDigits; more++) {
      const power = 10n ** BigInt(more);
      if (intersects(value * power, (value + unit) * power - (integer ? unit : 1n))) return true;
    }
    return false;
  }

  /** Returns true if [from, to] contains a number of the interval. */
  function intersects(from: bigint, to: bigint): boolean {
    const low = from > min ? from : min;
    const high = max === undefined || to < max ? to : max;
    return ((low + step - 1n) / step) * step <= high;
  }

  function keyOf({ value, digits, fraction }: Prefix): string {
    const limits = [min, max].map((limit) => (limit === undefined ? 0 : compare(value, digits, fraction, limit)));
    const isZero = digits === 1 && value === 0n;
    return [digits, fraction, isZero, ...limits, value % step].join();
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
