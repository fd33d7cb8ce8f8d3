import fc from 'fast-check';

/** Mostly the usual value, so that requests get past validation. */
export function mostly<T>(usual: fc.Arbitrary<T>, other: fc.Arbitrary<T>, weight = 12): fc.Arbitrary<T> {
  return fc.oneof({ weight, arbitrary: usual }, { weight: 1, arbitrary: other });
}

/** The same with a single usual value. */
export function rarely<T>(other: fc.Arbitrary<T>, usual: T): fc.Arbitrary<T> {
  return mostly(fc.constant(usual), other);
}
