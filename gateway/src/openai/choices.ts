import { PtpError } from '@ptp/protocol/errors';
import type { GenerationRequest, Generator } from '../decode/types.ts';
import { TextStream } from '../text/text-stream.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { Logprobs, type TokenLogprob } from './logprobs.ts';
import { merge } from './merge.ts';
import { type StepTrace, StepTracer } from './step-trace.ts';

/** One choice of a response. */
export interface ChoiceRequest extends GenerationRequest {
  /** The text ends before the first of these. */
  readonly stop: readonly string[];
  /** Whether it is the first one of its prompt. */
  readonly first: boolean;
  /** Whether its tokens are told with their log-probabilities, and what each step did. */
  readonly logprobs?: boolean;
  /** What the answer begins with: the prompt as text, and its tokens but for the one that the model has before every text. */
  readonly echo?: { readonly text: string; readonly tokens: readonly number[] };
  readonly trace?: boolean;
}

/** A piece of one choice's text; the last one has `finish`. */
export interface ChoiceDelta {
  /** Which choice, from 0. */
  readonly index: number;
  /** Never empty, unless with `finish`, `tokens` or `trace`. */
  readonly text: string;
  /** The tokens that came with it, if they were asked for; some of their text may come later. */
  readonly tokens?: readonly TokenLogprob[];
  /** The step that it came with, if that was asked for. */
  readonly trace?: StepTrace;
  readonly finish?: 'stop' | 'length';
}

/** OpenAI's `usage` object. */
export interface Usage {
  prompt_tokens: number;
  /** Tokens up to the end of text, the limit, or the one that completed a stop string: the same whatever was drafted. */
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: {
    /** Of each prompt once: what its first choice found in the prefix cache. */
    cached_tokens: number;
  };
  completion_tokens_details: {
    /** Proposed tokens that the target agreed with; of the client's prediction only, if it sent one. */
    accepted_prediction_tokens: number;
    rejected_prediction_tokens: number;
  };
}

/** @param promptTokens of each prompt once, as OpenAI counts, however many choices it has */
export function newUsage(promptTokens: number): Usage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: 0,
    total_tokens: promptTokens,
    prompt_tokens_details: { cached_tokens: 0 },
    completion_tokens_details: { accepted_prediction_tokens: 0, rejected_prediction_tokens: 0 },
  };
}

/**
 * Generates the choices of one response side by side.
 *
 * @param usage is added to as steps arrive
 * @throws PtpError what the generator throws, from whichever choice fails first; the others are ended
 */
export async function* generateChoices(
  generator: Generator,
  tokenizer: Tokenizer,
  requests: readonly ChoiceRequest[],
  usage: Usage,
  signal: AbortSignal,
): AsyncGenerator<ChoiceDelta> {
  signal.throwIfAborted();
  const ended = new AbortController();
  const either = AbortSignal.any([signal, ended.signal]);
  try {
    yield* merge(requests.map((request, index) => generateChoice(generator, tokenizer, request, index, usage, either)));
  } finally {
    ended.abort();
  }
}

async function* generateChoice(
  generator: Generator,
  tokenizer: Tokenizer,
  request: ChoiceRequest,
  index: number,
  usage: Usage,
  signal: AbortSignal,
): AsyncGenerator<ChoiceDelta> {
  const stream = new TextStream(request.stop);
  const logprobs = request.logprobs ? new Logprobs(tokenizer) : undefined;
  const tracer = request.trace ? new StepTracer(tokenizer) : undefined;
  for await (const step of generator.generate(request, signal)) {
    const { tokens, stats, finish, reusedTokens = 0 } = step;
    if (request.echo && stats.step === 0) {
      const told = logprobs && { tokens: logprobs.ofPrompt(request.echo.tokens, step.prompt) };
      yield { index, text: request.echo.text, ...told };
    }
    if (request.first) usage.prompt_tokens_details.cached_tokens += reusedTokens;
    if (!request.prediction || stats.source === 'prediction') {
      usage.completion_tokens_details.accepted_prediction_tokens += stats.accepted;
      usage.completion_tokens_details.rejected_prediction_tokens += stats.drafted - stats.accepted;
    }
    let text = '';
    let count = 0;
    for (const token of tokens) {
      text += stream.push(tokenizer.bytes(token));
      count++;
      if (stream.stopped) break;
    }
    usage.completion_tokens += count;
    usage.total_tokens += count;
    const piece = {
      index,
      text,
      ...(logprobs && { tokens: logprobs.of(step, count) }),
      ...(tracer && { trace: tracer.of(step, count) }),
    };
    if (finish && !stream.stopped) piece.text += stream.end();
    // The end may itself complete a stop string: a cut character reads as U+FFFD.
    if (stream.stopped) return yield { ...piece, finish: 'stop' };
    if (finish) return yield { ...piece, finish };
    if (text !== '' || piece.trace || (piece.tokens && count > 0)) yield piece;
  }
  signal.throwIfAborted();
  throw new PtpError('internal', 'the generator ended without a finish reason');
}
