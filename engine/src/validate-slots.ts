import { type ErrorCode, PtpError } from '@ptp/protocol/errors';
import type { UniformSource } from './sampling/uniforms.ts';
import type { DraftEngine, DraftSlot, EngineInfo, SequenceId, TargetSlot } from './types.ts';

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
  for (const [i, { tokens, sampling, uniforms, adjust, topCount = 0 }] of slots.entries()) {
    if (!sampling) continue;
    if (adjust) checkEqual(adjust.length, tokens.length, i, 'the length of `adjust`');
    checkInteger(topCount, 0, info.vocabulary, i, '`topCount`');
    checkUniforms(uniforms, i);
  }
}

/** Validates the slots of a draft run. Throws the same errors as `checkTargetSlots`. */
export function checkDraftSlots(
  slots: readonly DraftSlot[],
  { info, checksBlocks, maxBranchLength: maxLength }: Pick<DraftEngine, 'info' | 'checksBlocks' | 'maxBranchLength'>,
  rowsOf: RowsOf,
): void {
  checkContext(slots, info, rowsOf);
  for (const [i, { at, tokens, uniforms, branches, check: blockCheck }] of slots.entries()) {
    checkUniforms(uniforms, i);
    const planned = branches.length;
    if (checksBlocks) check(planned === 0, i, '`branches`', 'empty for a drafter that checks blocks', planned);
    else check(!blockCheck, i, '`check`', 'absent for a drafter that does not check blocks', 'a check');
    if (blockCheck) {
      checkInteger(blockCheck.block, 0, tokens.length - 1, i, '`block`');
      checkInteger(blockCheck.length, 1, maxLength, i, 'the draft length');
    }
    for (const { visible, length } of branches) {
      checkInteger(visible, Math.max(1, at), at + tokens.length, i, '`visible`');
      checkInteger(length, 1, maxLength, i, 'the branch length');
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

function checkUniforms(uniforms: UniformSource | undefined, slot: number): void {
  check(uniforms !== undefined, slot, '`uniforms`', 'present if the slot has `sampling`', uniforms);
  const { seed, offset } = uniforms;
  check(seed >= 0n && seed < 2n ** 64n, slot, '`seed`', 'in [0, 2^64)', seed);
  checkInteger(offset, -(2 ** 31), 2 ** 31 - 1, slot, '`offset`');
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
): asserts valid {
  if (!valid) throw new PtpError(code, `slot ${slot}: ${what} must be ${limit}, got ${got}`);
}
