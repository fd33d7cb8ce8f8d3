import type { Span } from '@opentelemetry/api';
import { PtpError } from '@ptp/core/errors.ts';
import type { Branch } from '@ptp/core/gen/ptp/v1/drafter_pb.ts';
import { attribute, endSpan } from '@ptp/core/telemetry/spans.ts';
import { Controller, type DraftLimits, type Mode, Pace } from './controller.ts';
import type { GenerationRequest, GenerationStep, Generator, PairFacts } from './generation.ts';
import { endRequestSpan, requestSpan, stepAttributes, stepSpan } from './spans.ts';
import type { Draft, DraftStream, Streams, VerifyStream } from './streams.ts';

/** A block to be verified: proposed tokens with the drafter's confidence in each. */
interface Block {
  readonly tokens: readonly number[];
  readonly confidences: readonly number[];
}

const EMPTY: Block = { tokens: [], confidences: [] };

/** The loop over the two services (docs/design.md, "The loop"): draft and verify are in flight at the same time, step after step. */
export class PairGenerator implements Generator {
  readonly #streams: Streams;
  readonly #limits: DraftLimits;
  readonly #pace = new Pace();

  constructor(streams: Streams, limits: DraftLimits) {
    this.#streams = streams;
    this.#limits = limits;
  }

  get facts(): PairFacts {
    return this.#streams.facts;
  }

  health(): { verifier: boolean; drafter: boolean } {
    return this.#streams.health();
  }

  async *generate(request: GenerationRequest, signal: AbortSignal): AsyncGenerator<GenerationStep> {
    checkRequest(request, this.facts);
    const span = requestSpan(request, this.facts);
    let failure: unknown;
    let tokens = 0;
    let finish: GenerationStep['finish'];
    let verifier: VerifyStream | undefined;
    let drafter: DraftStream | undefined;
    try {
      verifier = this.#streams.verify(request, signal, span);
      drafter = request.drafting === false ? undefined : this.#streams.draft(request, signal, span);
      const run = new Run(request, this.facts, new Controller(this.#limits, this.#pace), verifier, drafter, span);
      // The first block is drafted while the verifier reads the prompt.
      const opened = verifier.opened();
      const drafted = drafter ? drafter.opened(opened).then(() => run.fresh()) : run.fresh();
      const [first, { reusedTokens }] = await Promise.all([drafted, opened]);
      span.setAttribute(attribute.cachedTokens, reusedTokens);
      let block: Block | undefined = first.block;
      while (!finish) {
        const { step, next } = await run.step(block);
        tokens += step.tokens.length;
        finish = step.finish;
        block = next;
        yield step.facts.step === 0 ? { ...step, reusedTokens } : step;
      }
    } catch (error) {
      failure = error;
      throw error;
    } finally {
      drafter?.close();
      verifier?.close();
      endRequestSpan(span, { failure, finish, promptTokens: request.prompt.length, tokens });
    }
  }
}

/** One request's state between its steps. */
class Run {
  readonly #request: GenerationRequest;
  readonly #facts: PairFacts;
  readonly #controller: Controller;
  readonly #verifier: VerifyStream;
  readonly #drafter: DraftStream | undefined;
  readonly #span: Span;
  #generated = 0;
  #steps = 0;

  constructor(
    request: GenerationRequest,
    facts: PairFacts,
    controller: Controller,
    verifier: VerifyStream,
    drafter: DraftStream | undefined,
    span: Span,
  ) {
    this.#request = request;
    this.#facts = facts;
    this.#controller = controller;
    this.#verifier = verifier;
    this.#drafter = drafter;
    this.#span = span;
  }

  /** A block for the next positions, drafted with nothing under verification; empty when there is no drafter. */
  async fresh(parent: Span = this.#span): Promise<{ block: Block; micros: number }> {
    const wanted = this.#controller.blockLength(this.#request.maxTokens - this.#generated);
    const draft = wanted > 0 ? await this.#drafter?.step(EMPTY, this.#controller.freshPlan, parent) : undefined;
    const branch = draft?.branches[0];
    return { block: branch ? cut(branch, 0, wanted) : EMPTY, micros: draft?.micros ?? 0 };
  }

  /**
   * One step: verifies the block while its continuations are drafted, and returns what was committed with the next block.
   *
   * @param given the block chosen by the step before; undefined to draft one first (`redraft`)
   */
  async step(given: Block | undefined): Promise<{ step: GenerationStep; next: Block | undefined }> {
    const span = stepSpan(this.#span, this.#steps);
    try {
      const done = await this.#step(given, span);
      endSpan(span, { attributes: stepAttributes(done.step.facts) });
      return done;
    } catch (error) {
      endSpan(span, { error });
      throw error;
    }
  }

  async #step(given: Block | undefined, span: Span): Promise<{ step: GenerationStep; next: Block | undefined }> {
    const started = performance.now();
    const drafts = this.#drafter?.available() ?? false;
    const mode: Mode = drafts ? this.#controller.mode() : 'plain';
    const { block, micros: redraftMicros } =
      given || mode === 'plain' ? { block: given ?? EMPTY, micros: 0 } : await this.fresh(span);
    const last = this.#controller.blockLength(this.#request.maxTokens - this.#generated - block.tokens.length) === 0;
    const verifying = this.#verifier.step(block.tokens, span);
    const beside = mode === 'overlap' && !last;
    const drafting = beside ? this.#drafter?.step(block, this.#controller.overlapPlan, span) : undefined;
    const verified = await verifying;
    const committed = [...block.tokens.slice(0, verified.accepted), verified.nextToken];
    this.#drafter?.commit(committed);
    const draft = await drafting;
    const stepMicros = Math.round((performance.now() - started) * 1000);

    const { endOfText, stopTokens = [] } = this.#facts;
    const ended = committed.findIndex((token) => token === endOfText || stopTokens.includes(token));
    const tokens = ended < 0 ? committed : committed.slice(0, ended);
    this.#generated += tokens.length;
    const finish = ended >= 0 ? 'stop' : this.#generated >= this.#request.maxTokens ? 'length' : undefined;
    const facts = {
      step: this.#steps++,
      drafted: block.tokens.length,
      accepted: verified.accepted,
      stepMicros,
      verifyMicros: verified.micros,
      draftMicros: draft?.micros ?? 0,
      redraftMicros,
      verifyRunMicros: verified.runMicros,
      draftRunMicros: draft?.runMicros ?? 0,
    };
    if (drafts) this.#controller.observe(mode, committed.length, stepMicros);
    const logProbabilities = verified.logProbabilities.slice(0, tokens.length);
    return {
      step: { tokens, logProbabilities, facts, ...(finish && { finish }) },
      next: this.#choose(draft, verified.accepted, verified.nextToken),
    };
  }

  /**
   * The next block: the branch for what came true, without its first token, which was predicting the target's own from the same u.
   * If it predicted another one, or the budget left the branch out, the rest is of no use: undefined.
   */
  #choose(draft: Draft | undefined, accepted: number, nextToken: number): Block | undefined {
    const branch = draft?.branches.find((b) => b.accepted === accepted);
    if (!branch || branch.tokens.length < 2 || branch.tokens[0] !== nextToken) return undefined;
    return cut(branch, 1, this.#controller.blockLength(this.#request.maxTokens - this.#generated));
  }
}

/** Tokens from..from + length of a branch. */
function cut(branch: Branch, from: number, length: number): Block {
  return {
    tokens: branch.tokens.slice(from, from + length),
    confidences: branch.confidences.slice(from, from + length),
  };
}

/** @throws PtpError for what the services would refuse, before any stream is opened */
function checkRequest(request: GenerationRequest, facts: PairFacts): void {
  const { length } = request.prompt;
  if (length < 1 || length >= facts.contextLength) {
    const message = `the prompt must have 1 to ${facts.contextLength - 1} tokens, got ${length}`;
    throw new PtpError('out_of_range', message, { field: 'prompt' });
  }
  const room = facts.contextLength - length;
  if (!Number.isInteger(request.maxTokens) || request.maxTokens < 1 || request.maxTokens > room) {
    const message = `\`max_tokens\` must be in [1, ${room}] after a prompt of ${length} tokens, got ${request.maxTokens}`;
    throw new PtpError('out_of_range', message, { field: 'max_tokens' });
  }
}
