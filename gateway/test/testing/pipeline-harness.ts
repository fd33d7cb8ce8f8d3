import { DecodePipeline } from '../../src/decode/pipeline.ts';
import type { Command, PipelineParts, StepPolicy } from '../../src/decode/pipeline-types.ts';
import type { Draft, StepRef, Verdict } from '../../src/decode/ports.ts';
import type { Block, GenerationStep, StepDecision } from '../../src/decode/types.ts';

/** Maximum length of a block. */
export const LENGTH = 3;
export const overlap: StepDecision = { mode: 'overlap', reason: 'setting' };
export const plain: StepDecision = { mode: 'plain', reason: 'setting' };

/** A policy that always drafts full blocks, and records the steps that it observes. */
class FixedPolicy implements StepPolicy {
  decisions: StepDecision[] = [];
  worthAhead = true;
  readonly sent: boolean[] = [];
  readonly observed: Parameters<StepPolicy['observe']>[0][] = [];

  choose = (drafterAvailable: boolean) => (drafterAvailable ? (this.decisions.shift() ?? overlap) : plain);
  room = (wanted: number) => Math.max(0, Math.min(LENGTH, wanted - 1));
  better = (one: Block, other: Block) => (other.tokens.length > one.tokens.length ? other : one);
  worthVerifying = (block: Block) => block;
  worthDrafting = (mode: StepDecision['mode'], room: number) => (mode === 'plain' ? 0 : room);
  worthSendingAhead = () => this.worthAhead;
  sentAhead = (cameTrue: boolean) => void this.sent.push(cameTrue);
  chances = ({ confidences }: Block) => [...confidences];
  budget = () => 8;
  observe: StepPolicy['observe'] = (outcome) => void this.observed.push(outcome);
}

export function draft(...branches: [accepted: number, ...tokens: number[]][]): Draft {
  return {
    branches: branches.map(([accepted, ...tokens]) => ({
      $typeName: 'ptp.v1.Branch',
      accepted,
      tokens,
      confidences: tokens.map(() => 0.5),
    })),
    micros: 100,
    queueMicros: 0,
    runMicros: 80,
    batchSize: 1,
  };
}

/** @param micros time of the call in microseconds, 150 of them in the engine */
export function verdict(accepted: number, nextToken: number, micros = 200): Verdict {
  const logProbabilities = Array.from({ length: accepted + 1 }, () => -1);
  const time = { micros, queueMicros: 0, runMicros: 150, batchSize: 1, drafted: accepted };
  return { accepted, nextToken, logProbabilities, tops: [], time };
}

/** A pipeline whose clock the test sets. Its commands are written as `verify 1,2` or `verify 3 after 2:9`. */
export class Harness {
  readonly policy = new FixedPolicy();
  readonly steps: StepRef[] = [];
  readonly finished: GenerationStep[] = [];
  readonly pipeline: DecodePipeline;
  now = 0;
  drafterAvailable = true;

  constructor({ limits = { ahead: 4 }, request, proposers = [], isPlain = false }: Partial<PipelineParts> = {}) {
    const parts = { request: { maxTokens: 100, ...request }, limits, proposers, isPlain };
    this.pipeline = new DecodePipeline({ ...parts, model: { endOfText: 0 }, policy: this.policy });
  }

  /** Starts the pipeline with a first block. */
  begin(...tokens: number[]): string[] {
    this.pipeline.firstDraft();
    return this.redraft(...tokens);
  }

  redraft(...tokens: number[]): string[] {
    const answer = tokens.length > 0 ? draft([0, ...tokens]) : undefined;
    this.pipeline.receive({ kind: 'redraft', step: undefined, draft: answer, at: this.now });
    return this.next();
  }

  /** Reports that the verify call of a step has been sent. */
  left(step: number): string[] {
    this.pipeline.receive({ kind: 'verifySent', step: this.#ref(step) });
    return this.next();
  }

  drafted(step: number, ...branches: Parameters<typeof draft>): string[] {
    const answer = branches.length > 0 ? draft(...branches) : undefined;
    this.pipeline.receive({ kind: 'draft', step: this.#ref(step), draft: answer, at: this.now });
    return this.next();
  }

  /** @param outcome outcome of the step, or empty for a step that the verifier skipped */
  verified(step: number, ...outcome: Parameters<typeof verdict> | []): string[] {
    const [accepted, nextToken, micros] = outcome;
    const answer = accepted === undefined ? undefined : verdict(accepted, nextToken as number, micros);
    this.pipeline.receive({ kind: 'verdict', step: this.#ref(step), verdict: answer, at: this.now });
    return this.next();
  }

  /** Returns the commands that are due, takes a finished step, and appends the commands due after that step. */
  next(): string[] {
    const commands = this.pipeline.next(this.now, this.drafterAvailable).map((command) => this.#short(command));
    const step = this.pipeline.takeFinished();
    if (!step) return commands;
    this.finished.push(step);
    return step.finish ? commands : [...commands, ...this.next()];
  }

  #ref(step: number): StepRef {
    return this.steps[step] as StepRef;
  }

  /** Returns the number of a step, in the order in which steps were sent, dropped steps included. */
  #number(ref: StepRef | undefined): number {
    if (!ref) return -1;
    const known = this.steps.indexOf(ref);
    return known >= 0 ? known : this.steps.push(ref) - 1;
  }

  #short(command: Command): string {
    if (command.kind === 'commit') return `commit ${command.tokens}`;
    const step = this.#number(command.step);
    switch (command.kind) {
      case 'drop':
        return `drop #${step}`;
      case 'verify': {
        const { after, block } = command;
        const assumed = after && ('nextToken' in after ? ` after ${after.accepted}:${after.nextToken}` : ' after any');
        return `verify #${step} [${block}]${assumed ?? ''}`;
      }
      case 'draft':
        return `draft #${step} [${command.tokens.slice(0, command.assumed)}|${command.tokens.slice(command.assumed)}]`;
      case 'redraft':
        return `redraft #${step} ${command.budget}`;
    }
  }
}
