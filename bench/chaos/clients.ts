import type { Random } from '@ptp/core/random.ts';

/** A request whose text is known. */
export interface Question {
  readonly body: Readonly<Record<string, unknown>>;
  readonly text: string;
}

/** What became of streams. */
export interface Tally {
  streams: number;
  right: number;
  /** Refused before the first token, by status. */
  readonly refused: Record<string, number>;
  /** Texts that are not what they must be. */
  wrong: number;
  /** Streams that began and ended with an error, or not at all. */
  lost: number;
  readonly errors: Record<string, number>;
  /** Longest time without a token of each stream, milliseconds. */
  readonly gaps: number[];
  tokens: number;
}

export const newTally = (): Tally => ({
  streams: 0,
  right: 0,
  refused: {},
  wrong: 0,
  lost: 0,
  errors: {},
  gaps: [],
  tokens: 0,
});

const PROMPTS = ['def read(', 'import os\n', 'class Node:\n    ', 'for i in range(', '    return '];

/** Questions with the answers that plain decoding gives while nothing is wrong. */
export async function askQuietly(url: string, count: number, random: Random): Promise<Question[]> {
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
    const answer = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ ...body, ptp: { draft: false } }),
    });
    const { choices, error } = (await answer.json()) as { choices: { text: string }[]; error?: { message: string } };
    if (error) throw new Error(error.message);
    questions.push({ body, text: choices[0]?.text ?? '' });
  }
  return questions;
}

/** Asks one question after another until the signal is aborted. */
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
    const refused = await stream(url, question, tally).catch((error) => {
      tally.lost++;
      const name = String(error?.cause?.code ?? error?.message ?? error);
      tally.errors[name] = (tally.errors[name] ?? 0) + 1;
      return false;
    });
    // who is refused at the door comes again a little later
    if (refused) await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** @returns whether it was refused at the door @throws for a stream that was lost */
async function stream(url: string, { body, text }: Question, tally: Tally): Promise<boolean> {
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...body, stream: true }),
  });
  if (!response.ok || !response.body) {
    tally.refused[response.status] = (tally.refused[response.status] ?? 0) + 1;
    await response.body?.cancel();
    return true;
  }
  let [said, rest, done] = ['', '', false];
  let [last, gap] = [performance.now(), 0];
  const decoder = new TextDecoder();
  for await (const chunk of response.body) {
    gap = Math.max(gap, performance.now() - last);
    last = performance.now();
    const events = (rest + decoder.decode(chunk, { stream: true })).split('\n\n');
    rest = events.pop() ?? '';
    for (const event of events) {
      const data = event.slice('data: '.length);
      if (data === '[DONE]') done = true;
      else {
        const parsed = JSON.parse(data);
        if (parsed.error) throw new Error(parsed.error.message);
        said += parsed.choices[0]?.text ?? '';
        tally.tokens++;
      }
    }
  }
  if (!done) throw new Error('the stream ended without [DONE]');
  tally.gaps.push(gap);
  if (said === text) tally.right++;
  else tally.wrong++;
  return false;
}
