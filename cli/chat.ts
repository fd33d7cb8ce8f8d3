import { createInterface } from 'node:readline/promises';
import type { Readable, Writable } from 'node:stream';
import { type Answer, answer, summary } from './answer.ts';
import { type Client, RequestError } from './client.ts';

export interface ChatOptions {
  readonly client: Client;
  /** Fields of every request. */
  readonly body: object;
  readonly coloured: boolean;
  readonly input: Readable;
  readonly output: Writable;
  /** A line of its own on a terminal, with history and editing. */
  readonly terminal: boolean;
}

/**
 * Asks and answers until the input ends. Ctrl-C stops an answer; where nothing is being answered it ends the program.
 */
export async function chat({ client, body, coloured, input, output, terminal }: ChatOptions): Promise<void> {
  const messages: { role: string; content: string }[] = [];
  const lines = createInterface({ input, output, terminal, historySize: 200, prompt: '› ' });
  const say = (text: string) => void output.write(text);
  let stop: AbortController | undefined;
  let open = true;
  lines.on('SIGINT', () => (stop ? stop.abort() : lines.close()));
  lines.once('close', () => {
    open = false;
  });
  lines.prompt();
  for await (const line of lines) {
    if (line.trim() !== '') {
      stop = new AbortController();
      const asked = [...messages, { role: 'user', content: line }];
      let text = '';
      try {
        const pieces = client.stream('chat/completions', { ...body, messages: asked }, stop.signal);
        const done: Answer = await answer(pieces, say, coloured);
        text = done.text;
        say(`\n${summary(done)}\n`);
      } catch (error) {
        if (!stop.signal.aborted && !(error instanceof RequestError)) throw error;
        say(stop.signal.aborted ? '\nstopped\n' : `\n${(error as Error).message}\n`);
      }
      if (text !== '') messages.push(...asked.slice(-1), { role: 'assistant', content: text });
      stop = undefined;
    }
    if (open) lines.prompt();
  }
}
