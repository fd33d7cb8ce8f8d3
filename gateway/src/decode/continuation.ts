import type { Branch } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { afterFirstToken, committedTokens } from './block.ts';
import type { GrammarCursor } from './grammar-cursor.ts';
import type { PipelineParts } from './pipeline-types.ts';
import type { ExpectedOutcome } from './ports.ts';
import { endsText, type StepInFlight } from './step-in-flight.ts';
import type { Block } from './types.ts';

/** Expected continuation of the text after all steps in flight. */
export interface Continuation {
  /** Expected outcome of the last step in flight. */
  readonly outcome: ExpectedOutcome;
  /** Tokens that the steps in flight are expected to commit. */
  readonly tokens: readonly number[];
  /** The drafter's block after these tokens. */
  readonly draft: Block;
  /** Position in the grammar after these tokens. */
  readonly cursor: GrammarCursor;
}

/**
 * Returns the continuation that the draft of the last step expects. Returns undefined if the draft does not expect a
 * single outcome, or if the text would end with the steps in flight.
 *
 * @param cursor position in the grammar before the steps in flight
 * @param wanted maximum number of tokens to generate, including the tokens of the steps in flight
 */
export function expectedContinuation(
  flight: readonly StepInFlight[],
  cursor: GrammarCursor,
  wanted: number,
  parts: PipelineParts,
): Continuation | undefined {
  const last = flight.at(-1);
  const branch = last && expectedBranch(last);
  if (!branch) return undefined;
  const outcome = { of: last.ref, accepted: branch.accepted, nextToken: branch.tokens[0] as number };
  const tokens = [...expectedTokens(flight), ...committedTokens(last.block.tokens, outcome)];
  const next = cursor.after(tokens);
  if (!next || tokens.length >= wanted || tokens.some((token) => endsText(token, parts))) return undefined;
  return { outcome, tokens, draft: afterFirstToken(branch), cursor: next };
}

/** Returns the tokens that steps commit if all of them end as expected. */
export function expectedTokens(steps: readonly StepInFlight[]): number[] {
  return steps.flatMap(({ block, expected }) => (expected ? committedTokens(block.tokens, expected) : []));
}

/**
 * Returns the branch of a draft that expects a single outcome. Returns undefined once the outcome is known, or if the
 * branch leaves nothing to verify.
 */
function expectedBranch({ draft, verdict }: StepInFlight): Branch | undefined {
  const [branch, ...others] = draft?.branches ?? [];
  return !verdict && others.length === 0 && branch && branch.tokens.length >= 2 ? branch : undefined;
}
