import { Automaton, type AutomatonState } from '../../src/grammar/automaton.ts';
import type { Expression } from '../../src/grammar/expression.ts';

/** Returns true if the grammar accepts the text. */
export function accepts(grammar: Expression, text: string): boolean {
  const automaton = new Automaton(grammar);
  let state: AutomatonState | null = automaton.start;
  for (const byte of Buffer.from(text)) state = state && automaton.step(state, byte);
  return state?.accepting ?? false;
}

/** Seeded random numbers in [0, 1): the minimal standard generator (Park and Miller 1988). */
export function randoms(seed: number): () => number {
  let state = (seed % 2147483646) + 1;
  return () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
}

/** Generates a random text of the grammar byte by byte. Returns undefined if it exceeds `longest` bytes. */
export function randomText(grammar: Expression, random: () => number, longest = 400): string | undefined {
  const automaton = new Automaton(grammar);
  let state = automaton.start;
  const text: number[] = [];
  while (text.length < longest) {
    if (state.accepting && random() < 0.2) break;
    const steps = Array.from({ length: 256 }, (_, byte) => [byte, automaton.step(state, byte)] as const);
    // Prefer punctuation, which ends the current value, because most characters do not.
    const marks = steps.filter(([byte, next]) => next && '"}],0'.includes(String.fromCharCode(byte)));
    const possible = steps.filter(([, next]) => next);
    if (possible.length === 0) break;
    const from = marks.length > 0 && random() < 0.3 ? marks : possible;
    const [byte, next] = from[Math.floor(random() * from.length)] as readonly [number, AutomatonState];
    text.push(byte);
    state = next;
  }
  return state.accepting ? Buffer.from(text).toString() : undefined;
}
