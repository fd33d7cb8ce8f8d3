import { PtpError } from '@ptp/protocol/errors';
import type { GenerationRequest, GenerationStep, Generator, ModelInfo } from '../decode/types.ts';
import { TextStream } from '../text/text-stream.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { Logprobs, type TokenLogprob } from './logprobs.ts';
import { merge } from './merge.ts';
import { type StepTrace, StepTracer } from './step-trace.ts';

/** One choice of a response. */
export interface ChoiceRequest extends GenerationRequest {
  /** Strings that end the text. The text does not include them. */
  readonly stop: readonly string[];
  /** Number of tokens at the beginning that cannot complete a stop string. Default: 0. */
  readonly minTokens?: number;
  /** End of the prompt with which the generated tokens begin. It is not part of the text. */
  readonly healed?: Uint8Array;
  /** True for the first choice of each prompt. */
  readonly first: boolean;
  /** True to return the tokens and their log-probabilities. */
  readonly logprobs?: boolean;
  /** True to return a trace of each step. */
  readonly trace?: boolean;
  /** Prompt that the answer repeats first. */
  readonly echo?: {
    readonly text: string;
    /** Tokens of the prompt without the beginning-of-text token. */
    readonly tokens: readonly number[];
    /** True if the answer consists of the prompt alone. */
    readonly isAlone: boolean;
  };
}

/** Piece of one choice's text. The last piece has `finish`. */
export interface ChoiceDelta {
  /** Index of the choice, counted from 0. */
  readonly index: number;
  /** Text of the piece. May be empty only if `finish`, `tokens` or `trace` is present. */
  readonly text: string;
  /** Tokens of the step, if requested. Part of their text may arrive with a later piece. */
  readonly tokens?: readonly TokenLogprob[];
  /** Trace of the step, if requested. */
  readonly trace?: StepTrace;
  readonly finish?: 'stop' | 'length';
}

/** OpenAI's `usage` object. */
export type Usage = ReturnType<typeof newUsage>;

/** @param promptTokens number of tokens of all prompts. Each prompt counts once, even if it has several choices */
export function newUsage(promptTokens: number) {
  return {
    prompt_tokens: promptTokens,
    /**
     * Number of tokens up to the end of text, the limit, or the completed stop string. It does not depend on drafting.
     */
    completion_tokens: 0,
    total_tokens: promptTokens,
    /** Number of prompt tokens that the first choice of each prompt found in the prefix cache. */
    prompt_tokens_details: { cached_tokens: 0 },
    /** Counts of draft tokens. If the client sent a prediction, only its tokens count. */
    completion_tokens_details: { accepted_prediction_tokens: 0, rejected_prediction_tokens: 0 },
  };
}

/** Figures that a response reports in addition to its choices. The figures are updated as steps arrive. */
export interface ResponseFigures {
  readonly usage: Usage;
  /** Distinct warnings about guarantees that the response does not give. Steps may add more. */
  readonly warnings: Set<string>;
}

/** Returns the field of a response that contains its warnings, or no field if there are none. */
export function warningOf(warnings: Iterable<string>): { warning?: string } {
  const warning = [...warnings].join(' ');
  return warning === '' ? {} : { warning };
}

/**
 * Generates the choices of one response concurrently.
 *
 * @param figures figures that are updated as steps arrive
 * @throws PtpError the first error of any choice, after which the other choices are aborted
 */
export async function* generateChoices(
  generator: Generator,
  tokenizer: Tokenizer,
  requests: readonly ChoiceRequest[],
  figures: ResponseFigures,
  signal: AbortSignal,
): AsyncGenerator<ChoiceDelta> {
  signal.throwIfAborted();
  const others = new AbortController();
  const either = AbortSignal.any([signal, others.signal]);
  let finished = false;
  try {
    yield* merge(
      requests.map((request, index) => generateChoice(generator, tokenizer, request, index, figures, either)),
    );
    finished = true;
  } finally {
    // Choices that have finished end their streams themselves. An abort would reset these streams.
    if (!finished) others.abort();
  }
}

async function* generateChoice(
  generator: Generator,
  tokenizer: Tokenizer,
  request: ChoiceRequest,
  index: number,
  figures: ResponseFigures,
  signal: AbortSignal,
): AsyncGenerator<ChoiceDelta> {
  const { echo } = request;
  const healedBytes = request.healed?.length ?? 0;
  const stream = new TextStream(tokenizer, request.stop, request.minTokens, healedBytes);
  // With `echo`, the text contains the healed bytes too, as the end of the prompt.
  const logprobs = request.logprobs ? new Logprobs(tokenizer, echo ? 0 : healedBytes) : undefined;
  const tracer = request.trace ? new StepTracer(tokenizer, healedBytes) : undefined;
  for await (const step of generator.generate(request, signal)) {
    if (echo && step.stats.step === 0) {
      const tokens = logprobs && { tokens: logprobs.ofPrompt(echo.tokens, step.prompt) };
      const piece = { index, text: echo.text, ...tokens };
      if (echo.isAlone) {
        addToUsage(figures.usage, request, step, 0);
        return yield { ...piece, finish: 'length' };
      }
      yield piece;
    }
    const { text, count, finish } = stream.add(step.tokens, step.finish);
    addToUsage(figures.usage, request, step, count);
    if (step.truncated) figures.warnings.add(truncationWarning({ ...generator.model, ...generator.health() }));
    const delta = {
      index,
      text,
      ...(logprobs && { tokens: logprobs.of(step, count) }),
      ...(tracer && { trace: tracer.of(step, count) }),
    };
    if (finish) return yield { ...delta, finish };
    if (text !== '' || delta.trace || (delta.tokens && count > 0)) yield delta;
  }
  signal.throwIfAborted();
  throw new PtpError('internal', 'the generator ended without a finish reason');
}

function addToUsage(
  usage: Usage,
  { first, prediction }: ChoiceRequest,
  { stats, reusedTokens = 0 }: GenerationStep,
  count: number,
): void {
  if (first) usage.prompt_tokens_details.cached_tokens += reusedTokens;
  if (!prediction || stats.source === 'prediction') {
    usage.completion_tokens_details.accepted_prediction_tokens += stats.accepted;
    usage.completion_tokens_details.rejected_prediction_tokens += stats.drafted - stats.accepted;
  }
  usage.completion_tokens += count;
  usage.total_tokens += count;
}

function truncationWarning({ candidateLimit }: ModelInfo): string {
  const most = candidateLimit ? `the ${candidateLimit} most probable tokens` : 'the most probable tokens';
  return `Some tokens were sampled from only ${most}, because the engine reads no others. To sample exactly, set \`top_k\`, or a \`top_p\` or \`min_p\` that leaves out the rest.`;
}
