/** Set of Unicode code points, as inclusive ranges. */
export type Ranges = readonly (readonly [from: number, to: number])[];

export const anyCharacter: Ranges = [
  [0, 0xd7ff],
  [0xe000, 0x10ffff],
];

/** Sorts and merges ranges, and removes surrogates. */
export function normalize(ranges: Ranges): Ranges {
  const sorted = [...ranges].sort(([a], [b]) => a - b);
  const merged: [number, number][] = [];
  for (const [from, to] of sorted) {
    const last = merged.at(-1);
    if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to);
    else merged.push([from, to]);
  }
  return merged.flatMap((range) => overlaps(range, anyCharacter));
}

/** Returns all characters outside the ranges. */
export function complement(ranges: Ranges): Ranges {
  const out: [number, number][] = [];
  let next = 0;
  for (const [from, to] of normalize(ranges)) {
    if (from > next) out.push([next, from - 1]);
    next = to + 1;
  }
  if (next <= 0x10ffff) out.push([next, 0x10ffff]);
  return normalize(out);
}

/** Returns the characters that both sets contain. */
export function intersection(a: Ranges, b: Ranges): Ranges {
  return a.flatMap((range) => overlaps(range, b));
}

function overlaps([from, to]: Ranges[number], ranges: Ranges): [number, number][] {
  return ranges
    .map(([low, high]): [number, number] => [Math.max(from, low), Math.min(to, high)])
    .filter(([low, high]) => low <= high);
}
