import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI, { type APIError } from 'openai';
import type { Random } from '../random.ts';

/** A request with a known answer. */
export interface Question {
  readonly body: OpenAI.CompletionCreateParamsNonStreaming;
  readonly text: string;
}

/** Counts of streams by outcome. */
export const newTally = () => ({
  streams: 0,
  right: 0,
  /** Number of requests refused before the first token, by status: 429 and 503. */
  refused: {} as Record<string, number>,
  /** Number of requests that got another error status, such as 500. */
  failed: 0,
  /** Number of streams whose text differs from the known text. */
  wrong: 0,
  /** Number of streams that began, but ended with an error or never ended. */
  lost: 0,
  errors: {} as Record<string, number>,
  /** Number of streams whose client disconnected after the first tokens. */
  left: 0,
  /** Longest time in milliseconds without a token, one value per stream. */
  gaps: [] as number[],
  /** Number of tokens in the correct texts. */
  tokens: 0,
});
export type Tally = ReturnType<typeof newTally>;

const PROMPTS = ['def read(', 'import os\n', 'class Node:\n    ', 'for i in range(', '    return '];
/** Statuses of an overloaded server (429), and of a server without a verifier (503). */
const REFUSALS: readonly number[] = [429, 503];
/** Pause in milliseconds before a rejected client retries. */
const RETRY_MS = 100;

const completionsOf = (url: string) =>
  new OpenAI({ baseURL: `${url}/v1`, apiKey: 'unused', maxRetries: 0 }).completions;

/** Sends random requests with drafting disabled, before any fault, and records the answers. */
export async function askQuestions(url: string, count: number, random: Random): Promise<Question[]> {
  const completions = completionsOf(url);
  const undrafted = { ptp: { draft: false } };
  const questions: Question[] = [];
  for (let i = 0; i < count; i++) {
    const body = {
      model: 'default',
      prompt: random.of(PROMPTS),
      max_tokens: Math.round(random.between(20, 90)),
      temperature: random.of([0, 0.7, 1]),
      seed: Math.floor(random.between(0, 2 ** 31)),
      ...(random.next() < 0.2 && { structured_outputs: { regex: '[a-z ]{5,40}' } }),
      ...(random.next() < 0.2 && { frequency_penalty: 0.5, min_p: 0.02 }),
    };
    const { choices } = await completions.create({ ...body, ...undrafted });
    questions.push({ body, text: choices[0]?.text ?? '' });
  }
  return questions;
}

/** Share of requests without streaming, and share of clients that disconnect. */
const [WHOLE, LEAVING] = [0.15, 0.1];

/** Sends one request after another until the signal is aborted. */
export async function keepAsking(
  url: string,
  questions: readonly Question[],
  random: Random,
  tally: Tally,
  signal: AbortSignal,
): Promise<void> {
  const completions = completionsOf(url);
  while (!signal.aborted) {
    const question = random.of(questions);
    tally.streams++;
    const luck = random.next();
    const ask = luck < WHOLE ? whole : luck < WHOLE + LEAVING ? leave : stream;
    try {
      await ask(completions, question, tally);
    } catch (error) {
      count(error as APIError, tally);
      await sleep(RETRY_MS);
    }
  }
}

/** Counts a request that got no text. Only an error that came before the first token has a status. */
export function count({ status, message }: Pick<APIError, 'status' | 'message'>, tally: Tally): void {
  if (status !== undefined && REFUSALS.includes(status)) {
    tally.refused[status] = (tally.refused[status] ?? 0) + 1;
    return;
  }
  if (status === undefined) tally.lost++;
  else tally.failed++;
  tally.errors[message] = (tally.errors[message] ?? 0) + 1;
}

/** Sends one request. @throws APIError if the request is rejected, or its stream is lost */
type Ask = (completions: OpenAI.Completions, question: Question, tally: Tally) => Promise<void>;

function judge(text: string, question: Question, tokens: number, tally: Tally): void {
  if (text !== question.text) {
    tally.wrong++;
    return;
  }
  tally.right++;
  tally.tokens += tokens;
}

const whole: Ask = async (completions, question, tally) => {
  const { choices, usage } = await completions.create(question.body);
  judge(choices[0]?.text ?? '', question, usage?.completion_tokens ?? 0, tally);
};

const leave: Ask = async (completions, { body }, tally) => {
  const chunks = await completions.create({ ...body, stream: true });
  await chunks[Symbol.asyncIterator]().next();
  chunks.controller.abort();
  tally.left++;
};

const stream: Ask = async (completions, question, tally) => {
  const request = { ...question.body, stream: true, stream_options: { include_usage: true } } as const;
  const chunks = await completions.create(request);
  let [text, tokens, finished] = ['', 0, false];
  let [last, gap] = [performance.now(), 0];
  for await (const { choices, usage } of chunks) {
    gap = Math.max(gap, performance.now() - last);
    last = performance.now();
    text += choices[0]?.text ?? '';
    finished ||= Boolean(choices[0]?.finish_reason);
    tokens = usage?.completion_tokens ?? tokens;
  }
  if (!finished) throw new Error('the stream ended without a finish reason');
  tally.gaps.push(gap);
  judge(text, question, tokens, tally);
};
