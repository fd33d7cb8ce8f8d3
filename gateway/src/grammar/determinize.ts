import { Automaton, type AutomatonState } from './automaton.ts';
import { allBytes, type DfaState, type Expression } from './expression.ts';
import { getOrCreate } from './get-or-create.ts';

/**
 * Returns a DFA that is equivalent to an expression without recursion. The DFA is one stack instead of many, which
 * makes the automata that contain it smaller.
 */
export function determinize(expression: Expression): DfaState {
  const automaton = new Automaton(expression);
  const states = new Map<AutomatonState, DfaState>();
  const stateOf = (state: AutomatonState): DfaState =>
    getOrCreate(states, state, () => ({
      kind: 'dfa',
      accepting: state.accepting,
      bytes: allBytes.filter((byte) => automaton.step(state, byte)),
      next: (byte) => {
        const next = automaton.step(state, byte);
        return next ? stateOf(next) : undefined;
      },
    }));
  return stateOf(automaton.start);
}
