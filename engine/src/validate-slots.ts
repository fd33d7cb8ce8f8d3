import { type ErrorCode, PtpError } from '@ptp/protocol/errors';
import {
  branchLength,
  checkedLength,
  type DraftEngine,
  type DraftSlot,
  type EngineInfo,
  type SequenceId,
  type TargetSlot,
} from './types.ts';

/** Returns the number of valid rows, or undefined if the sequence is not open. */
export type RowsOf = (sequence: SequenceId) => number | undefined;

/**
 * Validates the slots of a target run.
 *
 * @throws PtpError `not_found` for a sequence that is not open, `out_of_range` for a slot beyond the context, otherwise
 *   `invalid_argument`
 */
export function checkTargetSlots(slots: readonly TargetSlot[], info: EngineInfo, rowsOf: RowsOf): void {
  checkContext(slots, info, rowsOf);
  for (const [i, { tokens, sampling, u, adjust, topCount = 0 }] of slots.entries()) {
    if (!sampling) continue;
    if (adjust) checkEqual(adjust.length, tokens.length, i, 'the length of `adjust`');
    checkInteger(topCount, 0, info.vocabulary, i, '`topCount`');
    checkEqual(u?.length ?? 0, tokens.length * info.uniformsPerPosition, i, 'the length of `u`');
    checkUniforms(u as Float32Array, i);
  }
}

/** Validates the slots of a draft run. Throws the same errors as `checkTargetSlots`. */
export function checkDraftSlots(
  slots: readonly DraftSlot[],
  { info, checksBlocks, maxBranchLength: maxLength }: Pick<DraftEngine, 'info' | 'checksBlocks' | 'maxBranchLength'>,
  rowsOf: RowsOf,
): void {
  checkContext(slots, info, rowsOf);
  for (const [i, { at, tokens, branches, check: blockCheck }] of slots.entries()) {
    const planned = branches.length;
    if (checksBlocks) check(planned === 0, i, '`branches`', 'empty for a drafter that checks blocks', planned);
    else check(!blockCheck, i, '`check`', 'absent for a drafter that does not check blocks', 'a check');
    if (blockCheck) {
      const { block, u } = blockCheck;
      checkInteger(block, 0, tokens.length - 1, i, '`block`');
      checkInteger(checkedLength(blockCheck, info.uniformsPerPosition), 1, maxLength, i, 'the draft length');
      checkUniforms(u, i);
    }
    for (const branch of branches) {
      checkInteger(branch.visible, Math.max(1, at), at + tokens.length, i, '`visible`');
      checkInteger(branchLength(branch, info.uniformsPerPosition), 1, maxLength, i, 'the branch length');
      checkUniforms(branch.u, i);
    }
  }
}

/**
 * Checks that a sequence has no rows.
 *
 * @throws PtpError `not_found` if the sequence is not open, `failed_precondition` if it has rows
 */
export function checkEmpty(sequence: SequenceId, rowsOf: RowsOf): void {
  const rows = rowsOf(sequence);
  if (rows === undefined) throw new PtpError('not_found', `sequence ${sequence} is not open`);
  if (rows > 0) throw new PtpError('failed_precondition', `sequence ${sequence} must have no rows, got ${rows}`);
}

function checkContext(slots: readonly (TargetSlot | DraftSlot)[], info: EngineInfo, rowsOf: RowsOf): void {
  const { maxSlots, vocabulary, contextLength } = info;
  if (!isInteger(slots.length, 1, maxSlots)) {
    throw new PtpError('invalid_argument', `a run must have 1 to ${maxSlots} slots, got ${slots.length}`);
  }
  const seen = new Set<SequenceId>();
  for (const [i, { sequence, at, tokens }] of slots.entries()) {
    const rows = rowsOf(sequence);
    if (rows === undefined) throw new PtpError('not_found', `slot ${i}: sequence ${sequence} is not open`);
    check(!seen.has(sequence), i, 'the sequence', 'different in each slot', sequence);
    seen.add(sequence);
    check(tokens.length > 0, i, 'the number of tokens', 'at least 1', tokens.length);
    checkInteger(at, 0, rows, i, '`at`');
    const end = at + tokens.length;
    check(end <= contextLength, i, 'the sequence length', `at most ${contextLength} tokens`, end, 'out_of_range');
    for (const token of tokens) checkInteger(token, 0, vocabulary - 1, i, 'each token');
  }
}

function checkUniforms(u: Float32Array, slot: number): void {
  const wrong = u.find((value) => !(value >= 0 && value < 1));
  check(wrong === undefined, slot, '`u`', 'in [0, 1)', wrong);
}

function isInteger(value: number, low: number, high: number): boolean {
  return Number.isInteger(value) && value >= low && value <= high;
}

function checkInteger(value: number, low: number, high: number, slot: number, what: string): void {
  if (!isInteger(value, low, high)) check(false, slot, what, `an integer in [${low}, ${high}]`, value);
}

function checkEqual(value: number, expected: number, slot: number, what: string): void {
  check(value === expected, slot, what, `${expected}`, value);
}

function check(
  valid: boolean,
  slot: number,
  what: string,
  limit: string,
  got: unknown,
  code: ErrorCode = 'invalid_argument',
): void {
  if (!valid) throw new PtpError(code, `slot ${slot}: ${what} must be ${limit}, got ${got}`);
}
