import type { GenerationStep } from './generation.ts';
import type { Tokenizer } from './tokenizer.ts';

/** What a streamed chunk tells of its step when a request asks for `ptp.trace`; times in microseconds. */
export type StepTrace = Readonly<Record<string, unknown>>;

/** @param count how many of the step's tokens are part of the answer */
export function stepTrace(step: GenerationStep, count: number, tokenizer: Tokenizer): StepTrace {
  const { facts, tokens, proposed } = step;
  const token = (id: number) => ({ id, text: new TextDecoder().decode(tokenizer.bytes(id)) });
  return {
    step: facts.step,
    mode: facts.mode,
    reason: facts.reason,
    source: facts.source,
    offered: facts.offered,
    budget: facts.budget,
    drafted: facts.drafted,
    accepted: facts.accepted,
    step_us: facts.stepMicros,
    verify_us: facts.verifyMicros,
    draft_us: facts.draftMicros,
    redraft_us: facts.redraftMicros,
    verify_run_us: facts.verifyRunMicros,
    draft_run_us: facts.draftRunMicros,
    tokens: tokens
      .slice(0, count)
      .map((id, i) => ({ ...token(id), source: i < facts.accepted ? facts.source : 'target' })),
    rejected: proposed.slice(facts.accepted).map(token),
  };
}
