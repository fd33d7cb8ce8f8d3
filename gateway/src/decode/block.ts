import type { Branch } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import type { AnyOutcome, ExpectedOutcome, StepOutcome } from './ports.ts';
import type { Block } from './types.ts';

/** Returns `length` tokens of a block, starting at `from`. */
export function cut({ source, tokens, confidences }: Block, from: number, length: number): Block {
  const end = from + length;
  return { source, tokens: tokens.slice(from, end), confidences: confidences.slice(from, end) };
}

export function blockOf({ tokens, confidences }: Branch): Block {
  return { source: 'drafter', tokens, confidences };
}

/** Returns a branch without its first token, which the verifier commits as its own. */
export function afterFirstToken(branch: Branch): Block {
  return cut(blockOf(branch), 1, Number.POSITIVE_INFINITY);
}

/** Returns the tokens that a step with this block and outcome commits. */
export function committedTokens(block: readonly number[], { accepted, nextToken }: StepOutcome): number[] {
  return [...block.slice(0, accepted), nextToken];
}

/** Returns true if a step that was sent ahead on the assumption `expected` may follow a step with this outcome. */
export function isExpected(outcome: StepOutcome, expected: ExpectedOutcome | AnyOutcome): boolean {
  if (!('nextToken' in expected)) return true;
  return outcome.accepted === expected.accepted && outcome.nextToken === expected.nextToken;
}

/**
 * Returns the branch that continues an outcome: it was drafted after the same number of accepted tokens, and starts
 * with the target's own token. Returns undefined if no branch predicted that token, or if the branch has no tokens
 * after it.
 */
export function branchAfter(branches: readonly Branch[], { accepted, nextToken }: StepOutcome): Branch | undefined {
  const branch = branches.find((each) => each.accepted === accepted);
  return branch && branch.tokens.length >= 2 && branch.tokens[0] === nextToken ? branch : undefined;
}
