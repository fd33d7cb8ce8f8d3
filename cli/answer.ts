import { styleText } from 'node:util';
import type { Client, Piece } from './client.ts';

/** As the page at `/` has them. */
const COLOURS: Readonly<Record<string, Parameters<typeof styleText>[0]>> = {
  drafter: 'green',
  'prompt lookup': 'magenta',
};

/** How an answer was made. Times in milliseconds. */
export interface Answer {
  readonly text: string;
  readonly tokens: number;
  readonly steps: number;
  readonly firstMs: number;
  /** Of the tokens after the first step; NaN where there are none. */
  readonly msPerToken: number;
}

/** Streams an answer to `write`, in colours if `coloured`. Servers that tell no tokens are counted by chunks. */
export async function answer(
  pieces: AsyncIterable<Piece>,
  write: (text: string) => void,
  coloured: boolean,
): Promise<Answer> {
  const began = performance.now();
  let [text, tokens, steps, first, firstTokens] = ['', 0, 0, 0, 0];
  for await (const piece of pieces) {
    text += piece.text;
    steps++;
    tokens += piece.tokens?.length ?? 1;
    if (first === 0) [first, firstTokens] = [performance.now(), tokens];
    write(coloured && piece.tokens ? piece.tokens.map(paint).join('') : piece.text);
  }
  const msPerToken = (performance.now() - first) / (tokens - firstTokens || Number.NaN);
  return { text, tokens, steps, firstMs: first - began, msPerToken };
}

function paint({ text, source }: { text: string; source: string }): string {
  const colour = COLOURS[source];
  return colour ? styleText(colour, text, { validateStream: false }) : text;
}

/** One line about an answer, beside the same without drafter if there is one. */
export function summary({ tokens, steps, firstMs, msPerToken }: Answer, plain?: Answer): string {
  const parts = [`${tokens} tokens`, `${(tokens / Math.max(1, steps)).toFixed(2)} per step`];
  parts.push(`first after ${firstMs.toFixed(0)} ms`, `then ${msPerToken.toFixed(1)} ms per token`);
  if (plain) {
    const ratio = (plain.msPerToken / msPerToken).toFixed(2);
    parts.push(`without drafter ${plain.msPerToken.toFixed(1)}: ${ratio} times as fast`);
  }
  return parts.join(', ');
}

/** An answer that nobody sees. */
export function silently(client: Client, body: object): Promise<Answer> {
  return answer(client.stream('completions', body), () => {}, false);
}
