import { describe, expect, test } from 'vitest';
import { Admission, admit } from '../../src/access/admission.ts';

const [ada, bob, cyd] = [{}, {}, {}];

describe('admission', () => {
  let now = 0;
  const limited = (limit: number) => new Admission(limit, () => now);
  const fill = (admission: Admission, count: number, owner: object) =>
    Array.from({ length: count }, () => admission.enter(1, owner));

  test('gives one owner everything if there are no others', () => {
    const leaves = fill(limited(4), 4, ada);
    expect(leaves).toHaveLength(4);
  });

  test('reserves free room for rejected owners, up to an equal share', () => {
    const admission = limited(4);
    const adas = fill(admission, 4, ada);
    for (let turn = 0; turn < 2; turn++) {
      expect(() => admission.enter(1, bob)).toThrow('overloaded: 4 of 4 sequences are running');
      adas.pop()?.();
      expect(() => admission.enter(1, ada)).toThrow('other keys are waiting for their share');
      admission.enter(1, bob);
    }
    // Both owners have half, so free places go to the first request.
    expect(() => admission.enter(1, bob)).toThrow('overloaded');
    adas.pop()?.();
    adas.push(admission.enter(1, ada));
    expect(() => admission.enter(1, bob)).toThrow('overloaded');
  });

  test('ends a reservation if its owner does not come back', () => {
    const admission = limited(2);
    const [first] = fill(admission, 2, ada);
    expect(() => admission.enter(1, bob)).toThrow('overloaded');
    first?.();
    expect(() => admission.enter(1, ada)).toThrow('other keys are waiting for their share');
    now += 3000;
    admission.enter(1, ada);
  });

  test('rounds shares to whole sequences, at least one', () => {
    const admission = limited(1);
    const leave = admission.enter(1, ada);
    for (const owner of [bob, cyd]) expect(() => admission.enter(1, owner)).toThrow('overloaded');
    leave();
    admission.enter(1, cyd);
  });

  test('reserves nothing for a request larger than a share', () => {
    const admission = limited(4);
    const [first, second] = fill(admission, 4, ada);
    expect(() => admission.enter(3, bob)).toThrow('overloaded');
    first?.();
    second?.();
    admission.enter(1, ada);
  });

  test('has no shares without keys', () => {
    const admission = limited(2);
    const leave = admission.enter(2);
    expect(() => admission.enter(1)).toThrow('overloaded: 2 of 2');
    leave();
    admission.enter(2);
  });

  test('rejects requests that never fit, without a reservation', () => {
    const admission = limited(2);
    expect(() => admission.enter(3, ada)).toThrow('`n` times the number of prompts must be at most 2, got 3');
    admission.enter(2, ada);
  });

  test("frees a key's own room if the server rejects the request", () => {
    const admission = limited(1);
    const client = { admission: new Admission(1) };
    const leave = admission.enter(1, ada);
    for (let turn = 0; turn < 2; turn++) {
      expect(() => admit(admission, client, 1)).toThrow('overloaded: 1 of 1 sequences are running');
    }
    leave();
    const leaveBoth = admit(admission, client, 1);
    expect(() => admit(admission, client, 1)).toThrow('overloaded: 1 of 1');
    leaveBoth();
    admit(admission, client, 1);
  });
});
