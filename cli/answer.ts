import { styleText } from 'node:util';
import type { Client, Piece, StreamedToken } from './client.ts';

/** Colors of tokens by their source, as on the gateway's page. */
const COLORS: Readonly<Record<string, Parameters<typeof styleText>[0]>> = {
  drafter: 'green',
  'prompt lookup': 'magenta',
};

/** An answer and its timing. */
export interface Answer {
  readonly text: string;
  readonly tokens: number;
  readonly steps: number;
  /** Time in milliseconds to the first step. */
  readonly firstMs: number;
  /** Time in milliseconds per token after the first step. NaN if there are no such tokens. */
  readonly msPerToken: number;
}

/** Writes an answer as it arrives. Each chunk counts as one token if the server does not list tokens. */
export async function answer(
  pieces: AsyncIterable<Piece>,
  write: (text: string) => void,
  colored: boolean,
): Promise<Answer> {
  const began = performance.now();
  let [text, tokens, steps, first, firstTokens] = ['', 0, 0, 0, 0];
  for await (const piece of pieces) {
    text += piece.text;
    steps++;
    tokens += piece.tokens?.length ?? 1;
    if (first === 0) [first, firstTokens] = [performance.now(), tokens];
    write(colored && piece.tokens ? piece.tokens.map(color).join('') : piece.text);
  }
  const msPerToken = (performance.now() - first) / (tokens - firstTokens || Number.NaN);
  return { text, tokens, steps, firstMs: first - began, msPerToken };
}

function color({ text, source }: StreamedToken): string {
  const style = COLORS[source];
  return style ? styleText(style, text, { validateStream: false }) : text;
}

/**
 * Returns a one-line summary. It includes the speedup over the answer without the drafter, if that answer was measured.
 */
export function summary({ tokens, steps, firstMs, msPerToken }: Answer, plain?: Answer): string {
  const parts = [`${tokens} tokens`, `${(tokens / Math.max(1, steps)).toFixed(2)} per step`];
  parts.push(`first after ${firstMs.toFixed(0)} ms`, `then ${msPerToken.toFixed(1)} ms per token`);
  if (plain) {
    const speedup = (plain.msPerToken / msPerToken).toFixed(2);
    parts.push(`without drafter ${plain.msPerToken.toFixed(1)} ms per token: speedup ${speedup}`);
  }
  return parts.join(', ');
}

/** Measures a completion without showing it. */
export function measure(client: Client, body: object): Promise<Answer> {
  return answer(client.stream('completions', body), () => {}, false);
}
