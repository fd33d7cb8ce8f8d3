import { setTimeout as sleep } from 'node:timers/promises';
import { EventSourceParserStream } from 'eventsource-parser/stream';
import type { Random } from '../random.ts';

/** A request with a known answer. */
export interface Question {
  readonly body: Readonly<Record<string, unknown>>;
  readonly text: string;
}

/** Counts of streams by outcome. */
export const newTally = () => ({
  streams: 0,
  right: 0,
  /** Number of requests rejected before the first token, by status. */
  refused: {} as Record<string, number>,
  /** Number of streams whose text differs from the known text. */
  wrong: 0,
  /** Number of streams that began, but ended with an error or never ended. */
  lost: 0,
  errors: {} as Record<string, number>,
  /** Number of streams whose client disconnected after the first tokens. */
  left: 0,
  /** Longest time without a token, one value per stream, milliseconds. */
  gaps: [] as number[],
  /** Number of tokens in the correct texts. */
  tokens: 0,
});
type Tally = ReturnType<typeof newTally>;

const PROMPTS = ['def read(', 'import os\n', 'class Node:\n    ', 'for i in range(', '    return '];
/** Pause before a rejected client retries, milliseconds. */
const RETRY_MS = 100;

/** Sends random requests with drafting disabled, before any fault, and records the answers. */
export async function askQuestions(url: string, count: number, random: Random): Promise<Question[]> {
  const questions: Question[] = [];
  for (let i = 0; i < count; i++) {
    const body = {
      prompt: random.of(PROMPTS),
      max_tokens: Math.round(random.between(20, 90)),
      temperature: random.of([0, 0.7, 1]),
      seed: Math.floor(random.between(0, 2 ** 31)),
      ...(random.next() < 0.2 && { structured_outputs: { regex: '[a-z ]{5,40}' } }),
      ...(random.next() < 0.2 && { frequency_penalty: 0.5, min_p: 0.02 }),
    };
    const answer = await post(url, { ...body, ptp: { draft: false } });
    const { choices, error } = (await answer.json()) as Completion;
    if (error) throw new Error(error.message);
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
  while (!signal.aborted) {
    const question = random.of(questions);
    tally.streams++;
    const luck = random.next();
    const ask = luck < WHOLE ? whole : luck < WHOLE + LEAVING ? leave : stream;
    const refused = await ask(url, question, tally).catch((error) => {
      tally.lost++;
      const name = String(error?.cause?.code ?? error?.message ?? error);
      tally.errors[name] = (tally.errors[name] ?? 0) + 1;
      return false;
    });
    if (refused) await sleep(RETRY_MS);
  }
}

/** Sends one request. @returns true if it was rejected @throws if its stream was lost */
type Ask = (url: string, question: Question, tally: Tally) => Promise<boolean>;

interface Completion {
  readonly choices: readonly { readonly text?: string }[];
  readonly usage?: { readonly completion_tokens: number } | null;
  readonly error?: { readonly message: string };
}

async function post(url: string, body: object, signal?: AbortSignal): Promise<Response> {
  return fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    ...(signal && { signal }),
  });
}

async function isRefused(response: Response, tally: Tally): Promise<boolean> {
  if (response.ok) return false;
  tally.refused[response.status] = (tally.refused[response.status] ?? 0) + 1;
  await response.body?.cancel();
  return true;
}

function judge(text: string, question: Question, tokens: number, tally: Tally): void {
  if (text !== question.text) {
    tally.wrong++;
    return;
  }
  tally.right++;
  tally.tokens += tokens;
}

const whole: Ask = async (url, question, tally) => {
  const response = await post(url, question.body);
  if (await isRefused(response, tally)) return true;
  const { choices, usage } = (await response.json()) as Completion;
  judge(choices[0]?.text ?? '', question, usage?.completion_tokens ?? 0, tally);
  return false;
};

const leave: Ask = async (url, { body }, tally) => {
  const hangUp = new AbortController();
  const response = await post(url, { ...body, stream: true }, hangUp.signal);
  if (await isRefused(response, tally)) return true;
  await response.body?.getReader().read();
  hangUp.abort();
  tally.left++;
  return false;
};

const stream: Ask = async (url, question, tally) => {
  const response = await post(url, { ...question.body, stream: true, stream_options: { include_usage: true } });
  if ((await isRefused(response, tally)) || !response.body) return true;
  const events = response.body.pipeThrough(new TextDecoderStream()).pipeThrough(new EventSourceParserStream());
  let [text, tokens, done] = ['', 0, false];
  let [last, gap] = [performance.now(), 0];
  for await (const { data } of events) {
    gap = Math.max(gap, performance.now() - last);
    last = performance.now();
    if (data === '[DONE]') {
      done = true;
      continue;
    }
    const { choices, usage, error } = JSON.parse(data) as Completion;
    if (error) throw new Error(error.message);
    text += choices[0]?.text ?? '';
    tokens = usage?.completion_tokens ?? tokens;
  }
  if (!done) throw new Error('the stream ended without [DONE]');
  tally.gaps.push(gap);
  judge(text, question, tokens, tally);
  return false;
};
