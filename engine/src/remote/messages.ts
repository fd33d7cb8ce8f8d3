import type { MessageInitShape } from '@bufbuild/protobuf';
import { codeFromGrpc, PtpError } from '@ptp/protocol/errors';
import type {
  DraftRunResult,
  DraftRunSchema,
  RunError,
  TargetResult,
  TargetRunSchema,
} from '@ptp/protocol/gen/ptp/v1/engine_pb';
import type { Adjustment } from '../sampling/adjust.ts';
import type { DraftOutput, DraftSlot, RunResult, TargetOutput, TargetSlot } from '../types.ts';

// Messages of EngineService. The engine is another program, so its answers are validated.

export function targetRun(slots: readonly TargetSlot[]): MessageInitShape<typeof TargetRunSchema> {
  return {
    slots: slots.map(({ sequence, at, tokens, sampling, uniforms, adjust = [], topCount = 0 }) => ({
      sequence,
      at,
      tokens: [...tokens],
      ...(sampling && uniforms && { sampling, uniforms, topCount, adjustments: adjust.map(adjustmentMessage) }),
    })),
  };
}

function adjustmentMessage({ scaled, scale, biased, biases, allowed }: Adjustment) {
  return { scaled: [...scaled], scale, biased: [...biased], biases: [...biases], ...(allowed && { allowed }) };
}

export function draftRun(slots: readonly DraftSlot[]): MessageInitShape<typeof DraftRunSchema> {
  return {
    slots: slots.map(({ sequence, at, tokens, sampling, uniforms, branches, check }) => ({
      sequence,
      at,
      tokens: [...tokens],
      sampling,
      uniforms,
      branches: [...branches],
      ...(check && { check }),
    })),
  };
}

/** Reads the result of `targetRun(slots)`. @throws PtpError `internal` if it does not fit the slots */
export function targetResult(
  { outputs, runUs }: TargetResult,
  slots: readonly TargetSlot[],
  vocabulary: number,
): RunResult<TargetOutput> {
  checkLength('outputs', outputs, slots.length);
  const read = slots.map(({ tokens, sampling, topCount = 0 }, i): TargetOutput => {
    const { picks = [], logProbabilities = [], topIds = [], topLogProbabilities = [] } = outputs[i] ?? {};
    const count = sampling ? tokens.length : 0;
    checkTokens('picks', picks, count, vocabulary);
    checkLength('log-probabilities', logProbabilities, count);
    checkTokens('alternatives', topIds, count * topCount, vocabulary);
    checkLength('log-probabilities of alternatives', topLogProbabilities, count * topCount);
    return {
      picks: Int32Array.from(picks),
      logProbabilities: Float32Array.from(logProbabilities),
      ...(topIds.length > 0 && {
        topIds: Int32Array.from(topIds),
        topLogProbabilities: Float32Array.from(topLogProbabilities),
      }),
    };
  });
  return { outputs: read, runMicros: runUs };
}

/** Reads the result of `draftRun(slots)`. @throws PtpError `internal` if it does not fit the slots */
export function draftResult(
  { outputs, runUs }: DraftRunResult,
  slots: readonly DraftSlot[],
  vocabulary: number,
): RunResult<DraftOutput> {
  checkLength('outputs', outputs, slots.length);
  const read = slots.map(({ branches, check }, i): DraftOutput => {
    const requests = check ? [check] : branches;
    const drafted = outputs[i]?.branches ?? [];
    checkLength('branches', drafted, requests.length);
    return {
      branches: drafted.map(({ tokens, confidences, accepted }, b) => {
        const { length = 0 } = requests[b] ?? {};
        checkTokens('drafted tokens', tokens, length, vocabulary);
        checkLength('confidences', confidences, length);
        if (check && !(accepted !== undefined && accepted <= check.block)) {
          throw invalid('number of accepted tokens', `at most ${check.block}`, accepted);
        }
        const branch = { tokens: Int32Array.from(tokens), confidences: Float32Array.from(confidences) };
        return check && accepted !== undefined ? { ...branch, accepted } : branch;
      }),
    };
  });
  return { outputs: read, runMicros: runUs };
}

/** Converts the failure of a request. Its message is for the log only if its code is `internal`. */
export function errorOf({ code, message }: RunError): PtpError {
  const known = codeFromGrpc(code);
  if (known === 'internal') return runFailure(message);
  return new PtpError(known, message);
}

export function runFailure(cause: unknown): PtpError {
  return new PtpError('internal', 'a model run has failed', { cause });
}

function checkTokens(what: string, tokens: readonly number[], count: number, vocabulary: number): void {
  checkLength(what, tokens, count);
  const wrong = tokens.find((token) => token >= vocabulary);
  if (wrong !== undefined) throw invalid(`each token of the ${what}`, `below ${vocabulary}`, wrong);
}

function checkLength(what: string, { length }: readonly unknown[], expected: number): void {
  if (length !== expected) throw invalid(`number of ${what}`, `${expected}`, length);
}

function invalid(what: string, expected: string, actual: unknown): PtpError {
  return runFailure(`the engine's answer is invalid: the ${what} must be ${expected}, got ${actual}`);
}
