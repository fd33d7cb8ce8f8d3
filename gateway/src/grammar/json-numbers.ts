import { choice, type Expression, literal, type Reader, sequence } from './expression.ts';

/** Numbers in a range, written without an exponent. */
export interface NumberRange {
  /** Inclusive unless said otherwise; -Infinity and Infinity for none. */
  readonly least: number;
  readonly most: number;
  readonly aboveLeast: boolean;
  readonly belowMost: boolean;
  /** Whole numbers only. */
  readonly integer: boolean;
  /** Multiples of this whole number, with `integer`; 1 for all. */
  readonly multipleOf: number;
}

/** Digits after the point, at most; as many as a double has to distinguish in what people write. */
const PLACES = 15;
/** Digits before the point where the range has no end. */
const DIGITS = 15;

/** Undefined where there is no such number. */
export function jsonNumberIn(range: NumberRange): Expression | undefined {
  const { least, most, aboveLeast, belowMost } = range;
  const upper = magnitudes({ ...range, least: Math.max(0, least), aboveLeast: least >= 0 && aboveLeast });
  const negative = least < 0 && (most >= 0 ? { ...range, least: 0, aboveLeast: true } : mirrored(range));
  const lower = negative && magnitudes({ ...negative, most: -least, belowMost: aboveLeast });
  const options = [
    ...(most > 0 || (most === 0 && !belowMost) ? [upper] : []),
    ...(lower ? [sequence(literal('-'), lower)] : []),
  ];
  const possible = options.filter((option) => option !== undefined);
  return possible.length > 0 ? choice(...possible) : undefined;
}

const mirrored = (range: NumberRange): NumberRange => ({ ...range, least: -range.most, aboveLeast: range.belowMost });

/** A number's digits so far, as a multiple of 10^-PLACES. */
interface Prefix {
  readonly value: bigint;
  /** Digits before the point, and after it; undefined before a point. */
  readonly digits: number;
  readonly places: number | undefined;
}

/** Unsigned numbers from `least` >= 0; a digit may come wherever some number of the range goes on with it. */
function magnitudes(range: NumberRange): Reader | undefined {
  const unit = 10n ** BigInt(PLACES);
  const least = scaled(range.least, unit);
  const most = range.most === Number.POSITIVE_INFINITY ? undefined : scaled(range.most, unit);
  const longest = most === undefined ? Math.max(DIGITS, String(least / unit).length + 1) : String(most / unit).length;
  const factor = BigInt(range.multipleOf) * unit;
  const readers = new Map<string, Reader | undefined>();
  return reader({ value: 0n, digits: 0, places: undefined });

  function reader(prefix: Prefix): Reader | undefined {
    const key = keyOf(prefix);
    if (!readers.has(key)) {
      readers.set(key, undefined);
      if (isComplete(prefix) || goesOn(prefix)) {
        readers.set(key, { kind: 'reader', complete: isComplete(prefix), next: (byte) => next(prefix, byte) });
      }
    }
    return readers.get(key);
  }

  function next({ value, digits, places }: Prefix, byte: number): Reader | undefined {
    if (byte === 0x2e) {
      return range.integer || digits === 0 || places !== undefined ? undefined : reader({ value, digits, places: 0 });
    }
    const digit = byte - 0x30;
    if (digit < 0 || digit > 9) return undefined;
    if (places !== undefined) {
      if (places === PLACES) return undefined;
      return reader({ value: value + BigInt(digit) * 10n ** BigInt(PLACES - 1 - places), digits, places: places + 1 });
    }
    // no digit after a leading zero
    if (digits === longest || (digits === 1 && value === 0n)) return undefined;
    return reader({ value: value * 10n + BigInt(digit) * unit, digits: digits + 1, places });
  }

  function isComplete({ value, digits, places }: Prefix): boolean {
    return digits > 0 && places !== 0 && inRange(value) && (!range.integer || value % factor === 0n);
  }

  function inRange(value: bigint): boolean {
    const high = range.aboveLeast ? value > least : value >= least;
    return high && (most === undefined || (range.belowMost ? value < most : value <= most));
  }

  /** Whether some number of the range begins so and is longer. */
  function goesOn({ value, digits, places }: Prefix): boolean {
    if (places !== undefined) return places < PLACES && meets(value, value + 10n ** BigInt(PLACES - places) - 1n);
    if (digits > 0 && !range.integer && meets(value, value + unit - 1n)) return true;
    if (digits === 1 && value === 0n) return false;
    for (let more = 1; digits + more <= longest; more++) {
      const power = 10n ** BigInt(more);
      if (meets(value * power, (value + unit) * power - (range.integer ? unit : 1n))) return true;
    }
    return false;
  }

  /** Whether a number of the range lies in [from, to]. */
  function meets(from: bigint, to: bigint): boolean {
    const step = range.integer ? factor : 1n;
    const low = max(from, range.aboveLeast ? least + 1n : least);
    const high = most === undefined ? to : min(to, range.belowMost ? most - 1n : most);
    return ((low + step - 1n) / step) * step <= high;
  }

  /** What decides how a number may go on: its length, where it lies beside each limit's own beginning, and its remainder. */
  function keyOf({ value, digits, places }: Prefix): string {
    const limits = [least, most].map((limit) => (limit === undefined ? 0 : compared(value, digits, places, limit)));
    const isZero = digits === 1 && value === 0n;
    return [digits, places, isZero, ...limits, range.integer ? value % factor : 0n].join();
  }

  function compared(value: bigint, digits: number, places: number | undefined, limit: bigint): number {
    const missing = BigInt(Math.max(0, String(limit / unit).length - digits));
    const cut = places === undefined ? unit * 10n ** missing : 10n ** BigInt(PLACES - places);
    const beginning = (limit / cut) * cut;
    const reached = places === undefined ? value * 10n ** missing : value;
    return reached < beginning ? -1 : reached > beginning ? 1 : 0;
  }
}

/** A limit as a multiple of 10^-PLACES, exact for what a double prints with up to so many places. */
function scaled(limit: number, unit: bigint): bigint {
  const [whole = '0', fraction = ''] = limit
    .toLocaleString('en', { useGrouping: false, maximumFractionDigits: PLACES })
    .split('.');
  return BigInt(whole) * unit + BigInt(fraction.padEnd(PLACES, '0'));
}

const max = (a: bigint, b: bigint): bigint => (a > b ? a : b);
const min = (a: bigint, b: bigint): bigint => (a < b ? a : b);
