import type { Branch } from '@ptp/protocol/gen/ptp/v1/drafter_pb';

/**
 * The branch that goes on from what came true: drafted for as many accepted tokens, and predicting the target's own token as its first;
 * undefined if there is none, or nothing after that token.
 */
export function branchThatFits(branches: readonly Branch[], accepted: number, nextToken: number): Branch | undefined {
  const branch = branches.find((b) => b.accepted === accepted);
  return branch && branch.tokens.length >= 2 && branch.tokens[0] === nextToken ? branch : undefined;
}
