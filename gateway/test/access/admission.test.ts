import { describe, expect, test } from 'vitest';
import { Admission, admit } from '../../src/access/admission.ts';

const [ada, bob, cyd] = [{}, {}, {}];

describe('the door', () => {
  let now = 0;
  const door = (limit: number) => new Admission(limit, () => now);
  const fill = (admission: Admission, count: number, holder: object) =>
    Array.from({ length: count }, () => admission.enter(1, holder));

  test('lets one holder have everything while nobody else asks', () => {
    const leaves = fill(door(4), 4, ada);
    expect(leaves).toHaveLength(4);
  });

  test('gives what becomes free to who was refused, up to an equal share', () => {
    const admission = door(4);
    const adas = fill(admission, 4, ada);
    for (let turn = 0; turn < 2; turn++) {
      expect(() => admission.enter(1, bob)).toThrow('overloaded: 4 of 4 sequences are running');
      adas.pop()?.();
      expect(() => admission.enter(1, ada)).toThrow('other keys wait for their share');
      admission.enter(1, bob);
    }
    // both have half: who comes first gets what becomes free
    expect(() => admission.enter(1, bob)).toThrow('overloaded');
    adas.pop()?.();
    adas.push(admission.enter(1, ada));
    expect(() => admission.enter(1, bob)).toThrow('overloaded');
  });

  test('keeps nothing for who does not come back', () => {
    const admission = door(2);
    const [first] = fill(admission, 2, ada);
    expect(() => admission.enter(1, bob)).toThrow('overloaded');
    first?.();
    expect(() => admission.enter(1, ada)).toThrow('other keys wait for their share');
    now += 3000;
    admission.enter(1, ada);
  });

  test('keeps no place that nobody may take: shares are whole, and at least one', () => {
    const admission = door(1);
    const leave = admission.enter(1, ada);
    for (const holder of [bob, cyd]) expect(() => admission.enter(1, holder)).toThrow('overloaded');
    leave();
    admission.enter(1, cyd);
  });

  test('keeps no places for a request that is larger than a share', () => {
    const admission = door(4);
    const [first, second] = fill(admission, 4, ada);
    expect(() => admission.enter(3, bob)).toThrow('overloaded');
    first?.();
    second?.();
    admission.enter(1, ada);
  });

  test('knows no shares where there are no keys', () => {
    const admission = door(2);
    const leave = admission.enter(2);
    expect(() => admission.enter(1)).toThrow('overloaded: 2 of 2');
    leave();
    admission.enter(2);
  });

  test('refuses for good what never fits, and counts nothing of it', () => {
    const admission = door(2);
    expect(() => admission.enter(3, ada)).toThrow('`n` times the number of prompts must be at most 2, got 3');
    admission.enter(2, ada);
  });

  test("gives a key's own room back when the server has none", () => {
    const admission = door(1);
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
