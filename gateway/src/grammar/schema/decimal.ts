import { isLongNumber, type LongNumber } from '@ptp/protocol/long-number';

/** Exact decimal number: units / 10^scale. */
export interface Decimal {
  readonly units: bigint;
  /** Number of digits after the decimal point. At least 0. */
  readonly scale: number;
}

/** Maximum absolute exponent of a number in a schema, beyond the range of doubles. */
const EXPONENT_LIMIT = 400;

/** Returns the exact value of a number, or undefined if its exponent is beyond the range of doubles. */
export function decimalOf(number: number | LongNumber): Decimal | undefined {
  if (isLongNumber(number)) return parseDecimal(number.rawJSON);
  if (Number.isInteger(number)) return { units: BigInt(number), scale: 0 };
  return parseDecimal(String(number));
}

function parseDecimal(text: string): Decimal | undefined {
  const parts = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(text);
  if (!parts) return undefined;
  const [, sign, whole = '', fraction = '', exponent = '0'] = parts;
  if (Math.abs(Number(exponent)) > EXPONENT_LIMIT) return undefined;
  const units = BigInt(`${sign}${whole}${fraction}`);
  const scale = fraction.length - Number(exponent);
  return simplified(scale < 0 ? { units: units * 10n ** BigInt(-scale), scale: 0 } : { units, scale });
}

function simplified({ units, scale }: Decimal): Decimal {
  let [digits, places] = [units, scale];
  while (places > 0 && digits % 10n === 0n) [digits, places] = [digits / 10n, places - 1];
  return { units: digits, scale: places };
}

/** Returns the number in units of 10^-finer. `finer` must be at least the scale of the number. */
export const unitsAt = ({ units, scale }: Decimal, finer: number): bigint => units * 10n ** BigInt(finer - scale);

/** Returns -1, 0 or 1, as `a` is less than, equal to or greater than `b`. */
export function compareDecimals(a: Decimal, b: Decimal): number {
  const scale = Math.max(a.scale, b.scale);
  const difference = unitsAt(a, scale) - unitsAt(b, scale);
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

export function isMultipleOf(value: Decimal, factor: Decimal): boolean {
  const scale = Math.max(value.scale, factor.scale);
  return unitsAt(value, scale) % unitsAt(factor, scale) === 0n;
}

/** Returns the least common multiple of positive numbers. */
export function commonMultiple(a: Decimal, b: Decimal): Decimal {
  const scale = Math.max(a.scale, b.scale);
  return simplified({ units: leastCommonMultiple(unitsAt(a, scale), unitsAt(b, scale)), scale });
}

/** Returns the least common multiple of positive integers. */
export function leastCommonMultiple(a: bigint, b: bigint): bigint {
  let [divisor, rest] = [a, b];
  while (rest > 0n) [divisor, rest] = [rest, divisor % rest];
  return (a / divisor) * b;
}

/** Returns a text that has the same value for equal decimals. */
export const decimalKey = (value: Decimal): string => {
  const { units, scale } = simplified(value);
  return `${units}/${scale}`;
};
