/** Returns a mask that allows none of `size` tokens. Bit t % 8 of byte t / 8 stands for token t. */
export function emptyMask(size: number): Uint8Array {
  return new Uint8Array(Math.ceil(size / 8));
}

export function allow(mask: Uint8Array, id: number): void {
  mask[id >> 3] = (mask[id >> 3] as number) | (1 << (id & 7));
}

export function disallow(mask: Uint8Array, id: number): void {
  mask[id >> 3] = (mask[id >> 3] as number) & ~(1 << (id & 7));
}

/** Allows the tokens of another mask. */
export function allowAll(mask: Uint8Array, other: Uint8Array): void {
  for (let i = 0; i < mask.length; i++) mask[i] = (mask[i] as number) | (other[i] as number);
}

export const isAllowed = (mask: Uint8Array, id: number): boolean => (((mask[id >> 3] as number) >> (id & 7)) & 1) === 1;
