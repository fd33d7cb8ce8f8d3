import { createInterface } from 'node:readline/promises';
import type { Readable, Writable } from 'node:stream';
import { answer, summary } from './answer.ts';
import { type Client, RequestError } from './client.ts';

export interface ChatOptions {
  readonly client: Client;
  /** Fields of every request. */
  readonly body: object;
  readonly colored: boolean;
  readonly input: Readable;
  readonly output: Writable;
  /** Enables line editing and history. */
  readonly terminal: boolean;
}

/** Reads and answers messages until the input ends. Ctrl-C stops an answer in progress, otherwise the program. */
export async function chat({ client, body, colored, input, output, terminal }: ChatOptions): Promise<void> {
  const messages: { role: string; content: string }[] = [];
  const lines = createInterface({ input, output, terminal, historySize: 200, prompt: '› ' });
  const write = (text: string) => void output.write(text);
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
      const conversation = [...messages, { role: 'user', content: line }];
      let text = '';
      try {
        const pieces = client.stream('chat/completions', { ...body, messages: conversation }, stop.signal);
        const done = await answer(pieces, write, colored);
        text = done.text;
        write(`\n${summary(done)}\n`);
      } catch (error) {
        if (!stop.signal.aborted && !(error instanceof RequestError)) throw error;
        write(stop.signal.aborted ? '\nstopped\n' : `\n${(error as Error).message}\n`);
      }
      if (text !== '') messages.push(...conversation.slice(-1), { role: 'assistant', content: text });
      stop = undefined;
    }
    if (open) lines.prompt();
  }
}
