import type { Span } from '@opentelemetry/api';
import { PtpError } from '@ptp/core/errors.ts';
import type { Branch } from '@ptp/core/gen/ptp/v1/drafter_pb.ts';
import { attribute, endSpan } from '@ptp/core/telemetry/spans.ts';
import type { Draft, DraftStream, Streams, VerifyStream } from '../services/streams.ts';
import { branchThatFits } from './branch.ts';
import { type Block, Controller, cut, type DraftLimits, EMPTY, Measurements } from './controller.ts';
import { Forced } from './forced.ts';
import type { GenerationRequest, GenerationStep, Generator, Health, PairFacts } from './generation.ts';
import { Path } from './path.ts';
import { Prediction } from './prediction.ts';
import { PromptLookup } from './prompt-lookup.ts';
import { endRequestSpan, requestSpan, stepAttributes, stepSpan } from './spans.ts';

/** The loop over the two services (docs/design.md, "The loop"): draft and verify are in flight at the same time, step after step. */
export class PairGenerator implements Generator {
  readonly #streams: Streams;
  readonly #limits: DraftLimits;
  readonly #measured: Measurements;

  constructor(streams: Streams, limits: DraftLimits) {
    this.#streams = streams;
    this.#limits = limits;
    this.#measured = new Measurements(limits.length);
  }

  get facts(): PairFacts {
    return this.#streams.facts;
  }

  health(): Health {
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
    const limits = limitsFor(request, this.#limits);
    const controller = new Controller(limits, this.#measured);
    try {
      verifier = this.#streams.verify(request, signal, span);
      drafter = limits.mode === 'plain' ? undefined : this.#streams.draft(request, signal, span);
      const sources = request.drafting === false ? [] : sourcesOf(request, limits, this.facts);
      const run = new Run(request, this.facts, { controller, sources, verifier, drafter, span });
      // The first block is drafted while the verifier reads the prompt.
      const opened = verifier.opened();
      const drafted = drafter ? drafter.opened(opened).then(() => run.fresh()) : run.fresh();
      const [first, { reusedTokens, prompt }] = await Promise.all([drafted, opened]);
      span.setAttribute(attribute.cachedTokens, reusedTokens);
      let block: Block | undefined = first.block;
      while (!finish) {
        const { step, next } = await run.step(block);
        tokens += step.tokens.length;
        finish = step.finish;
        block = next;
        yield step.facts.step === 0 ? { ...step, reusedTokens, ...(prompt && { prompt }) } : step;
      }
    } catch (error) {
      failure = error;
      throw error;
    } finally {
      controller.close();
      drafter?.close();
      verifier?.close();
      endRequestSpan(span, { failure, finish, promptTokens: request.prompt.length, tokens });
    }
  }
}

/** What one request's steps are made with. */
interface RunParts {
  readonly controller: Controller;
  /** What proposes beside the drafter. */
  readonly sources: readonly Source[];
  readonly verifier: VerifyStream;
  readonly drafter: DraftStream | undefined;
  readonly span: Span;
}

/** One request's state between its steps. */
class Run {
  readonly #request: GenerationRequest;
  readonly #facts: PairFacts;
  readonly #controller: Controller;
  readonly #sources: RunParts['sources'];
  readonly #verifier: VerifyStream;
  readonly #drafter: DraftStream | undefined;
  readonly #span: Span;
  readonly #path: Path;
  #generated = 0;
  #steps = 0;

  constructor(request: GenerationRequest, facts: PairFacts, parts: RunParts) {
    this.#request = request;
    this.#facts = facts;
    this.#controller = parts.controller;
    this.#sources = parts.sources;
    this.#verifier = parts.verifier;
    this.#drafter = parts.drafter;
    this.#span = parts.span;
    this.#path = new Path(request.grammar);
  }

  /** A block for the next positions, drafted with nothing under verification; empty when there is no drafter. */
  async fresh(wanted = this.#room(0), parent: Span = this.#span): Promise<{ block: Block; micros: number }> {
    const plan = { budget: wanted, maxBranchLength: wanted };
    const draft = wanted > 0 ? await this.#drafter?.step(EMPTY, plan, parent) : undefined;
    const [branch] = draft?.branches ?? [];
    return { block: branch ? this.#path.allowed(drafted(branch)) : EMPTY, micros: draft?.micros ?? 0 };
  }

  /** Longest block that may follow when so many more tokens have been committed. */
  #room(committed: number): number {
    return this.#controller.room(this.#request.maxTokens - this.#generated - committed);
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
    const controller = this.#controller;
    const { mode, reason } = controller.choose(this.#drafter?.available() ?? false);
    const room = this.#room(0);
    const atHand = this.#sources.reduce(
      (best, source) => controller.better(best, this.#path.allowed(source.propose(room))),
      given ? this.#path.allowed(given) : EMPTY,
    );
    const wanted = given ? 0 : controller.worthDrafting(mode, room, atHand);
    const fresh = wanted > 0 ? await this.fresh(wanted, span) : { block: EMPTY, micros: 0 };
    const offered = controller.better(atHand, fresh.block);
    const redraftMicros = fresh.micros;
    const block = controller.worthVerifying(offered, mode);
    const verifying = this.#verifier.step(block.tokens, this.#path.masks(block.tokens), span);
    const beside = mode === 'overlap' && this.#room(block.tokens.length) > 0;
    const budget = beside ? controller.budget(block.tokens.length) : 0;
    const drafting = beside ? this.#draftBeside(block, budget, span) : undefined;
    const verified = await verifying;
    const committed = [...block.tokens.slice(0, verified.accepted), verified.nextToken];
    this.#path.follow(committed);
    this.#drafter?.commit(committed);
    for (const source of this.#sources) source.push(committed);
    const draft = await drafting;
    const stepMicros = Math.round((performance.now() - started) * 1000);

    const ended = committed.findIndex((token) => this.#ends(token));
    const tokens = ended < 0 ? committed : committed.slice(0, ended);
    this.#generated += tokens.length;
    const finish = ended >= 0 ? 'stop' : this.#generated >= this.#request.maxTokens ? 'length' : undefined;
    const facts = {
      step: this.#steps++,
      mode,
      reason,
      source: block.tokens.length > 0 ? block.source : 'none',
      offered: offered.tokens.length,
      budget,
      drafted: block.tokens.length,
      accepted: verified.accepted,
      stepMicros,
      verifyMicros: verified.time.micros,
      draftMicros: draft?.micros ?? 0,
      redraftMicros,
      verifyRunMicros: verified.time.runMicros,
      draftRunMicros: draft?.runMicros ?? 0,
    };
    if (this.#request.drafting !== false) {
      const times = { stepMicros, verify: verified.time, draftMicros: facts.draftMicros, redraftMicros };
      controller.observe({ mode, block, accepted: facts.accepted, budget, wanted, ...times });
    }
    const logProbabilities = verified.logProbabilities.slice(0, tokens.length);
    const tops = verified.tops.slice(0, tokens.length);
    return {
      step: {
        tokens,
        proposed: block.tokens,
        logProbabilities,
        ...(tops.length > 0 && { tops }),
        facts,
        ...(finish && { finish }),
      },
      next: this.#choose(draft, verified.accepted, verified.nextToken),
    };
  }

  /** Whether a token ends the text, of which it is no part. */
  #ends(token: number): boolean {
    const { stopTokens, ignoreEndOfText = false } = this.#request;
    if (stopTokens?.includes(token)) return true;
    return !ignoreEndOfText && (token === this.#facts.endOfText || (this.#facts.stopTokens?.includes(token) ?? false));
  }

  /** Drafts after `block`, whatever comes of it. The verify call, which most steps wait for longest, leaves the process first. */
  async #draftBeside(block: Block, budget: number, span: Span): Promise<Draft | undefined> {
    await new Promise((resolve) => setImmediate(resolve));
    return this.#drafter?.step(...this.#branchesAfter(block, budget), span);
  }

  /** What a draft call beside the verify of `block` is asked: branches after it, for its likely outcomes. */
  #branchesAfter(block: Block, budget: number): [Block, { budget: number; maxBranchLength: number }] {
    const confidences = this.#controller.chances(block);
    // a branch starts with the token that the verifier says anyway
    const maxBranchLength = this.#controller.room(Number.POSITIVE_INFINITY) + 1;
    return [
      { ...block, confidences },
      { budget, maxBranchLength },
    ];
  }

  /**
   * The next block: the branch for what came true, without its first token, which was predicting the target's own from the same u.
   * If it predicted another one, or the budget left the branch out, the rest is of no use: undefined.
   */
  #choose(draft: Draft | undefined, accepted: number, nextToken: number): Block | undefined {
    const branch = branchThatFits(draft?.branches ?? [], accepted, nextToken);
    return branch && cut(drafted(branch), 1, this.#room(0));
  }
}

const drafted = ({ tokens, confidences }: Branch): Block => ({ source: 'drafter', tokens, confidences });

/** What proposes without a model. */
type Source = PromptLookup | Prediction | Forced;

function sourcesOf(
  { prompt, prediction, grammar }: GenerationRequest,
  { lookup = true }: DraftLimits,
  { vocabulary }: PairFacts,
): Source[] {
  return [
    ...(grammar ? [new Forced(grammar)] : []),
    ...(prediction && prediction.length > 0 ? [new Prediction(prediction)] : []),
    ...(lookup ? [new PromptLookup(prompt, vocabulary)] : []),
  ];
}

/** The gateway's limits with what the request wants otherwise. */
function limitsFor({ draftLimits = {}, drafting }: GenerationRequest, limits: DraftLimits): DraftLimits {
  const length = Math.min(draftLimits.length ?? limits.length, limits.length);
  // a step that was not to draft is no fallback for want of a drafter
  return { ...limits, ...draftLimits, length, ...(drafting === false && { mode: 'plain' as const }) };
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
