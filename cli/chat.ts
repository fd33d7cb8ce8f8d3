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

interface Message {
  readonly role: string;
  readonly content: string;
}

/** A conversation that fits the context of the model: its oldest turns are forgotten if necessary. */
class Conversation {
  #system: Message[] = [];
  #turns: (readonly [Message, Message])[] = [];

  setSystem(content: string): void {
    this.#system = content === '' ? [] : [{ role: 'system', content }];
  }

  clear(): void {
    this.#turns = [];
  }

  /** Forgets the oldest turn. @returns false if there is none */
  forgetOldest(): boolean {
    return this.#turns.shift() !== undefined;
  }

  with(content: string): Message[] {
    return [...this.#system, ...this.#turns.flat(), { role: 'user', content }];
  }

  add(question: string, reply: string): void {
    this.#turns.push([
      { role: 'user', content: question },
      { role: 'assistant', content: reply },
    ]);
  }
}

/**
 * Reads and answers messages until the input ends. Ctrl-C stops an answer in progress, otherwise the program.
 *
 * @returns false if a message could not be answered
 */
export async function chat({ client, body, colored, input, output, terminal }: ChatOptions): Promise<boolean> {
  const conversation = new Conversation();
  const lines = createInterface({ input, output, terminal, historySize: 200, prompt: '› ' });
  const write = (text: string) => void output.write(text);
  let stop: AbortController | undefined;
  let isOpen = true;
  let isComplete = true;
  lines.on('SIGINT', () => (stop ? stop.abort() : lines.close()));
  lines.once('close', () => {
    isOpen = false;
  });

  async function reply(question: string, signal: AbortSignal): Promise<void> {
    try {
      const messages = conversation.with(question);
      const done = await answer(client.stream('chat/completions', { ...body, messages }, signal), write, colored);
      write(`\n${summary(done)}\n`);
      if (done.text !== '') conversation.add(question, done.text);
    } catch (error) {
      if (signal.aborted) write('\nstopped\n');
      else if (!(error instanceof RequestError)) throw error;
      else if (error.isTooLong && conversation.forgetOldest()) {
        write('the context is full: the oldest question and its answer are forgotten\n');
        await reply(question, signal);
      } else {
        isComplete = false;
        write(`\n${error.message}\n`);
      }
    }
  }

  lines.prompt();
  for await (const line of lines) {
    const [command, ...words] = line.trim().split(/\s+/);
    if (command === '/clear') conversation.clear();
    else if (command === '/system') conversation.setSystem(words.join(' '));
    else if (command) {
      stop = new AbortController();
      await reply(line, stop.signal);
      stop = undefined;
    }
    if (isOpen) lines.prompt();
  }
  return isComplete;
}
