import fc from 'fast-check';

/** Generates the usual values in most cases, so that requests get past validation. */
export function mostly<T>(usual: fc.Arbitrary<T>, other: fc.Arbitrary<T>, weight = 12): fc.Arbitrary<T> {
  return fc.oneof({ weight, arbitrary: usual }, { weight: 1, arbitrary: other });
}

/** Generates one usual value in most cases. */
export function rarely<T>(other: fc.Arbitrary<T>, usual: T): fc.Arbitrary<T> {
  return mostly(fc.constant(usual), other);
}
