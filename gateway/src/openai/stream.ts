import { randomUUID } from 'node:crypto';
import { toPtpError } from '@ptp/protocol/errors';
import type { FastifyReply } from 'fastify';
import manifest from '../../package.json' with { type: 'json' };
import { openAiError } from '../http/errors.ts';
import { takeOver } from '../http/reply.ts';
import { EventStream } from '../http/sse.ts';
import type { ChoiceDelta, Usage } from './choices.ts';
import type { TokenLogprob } from './logprobs.ts';
import type { StepTrace } from './step-trace.ts';

/** How one endpoint spells its results; each function makes one entry of `choices`. */
export interface Format {
  readonly idPrefix: string;
  readonly object: string;
  readonly chunkObject: string;
  /** What a stream says of a choice before its text, if anything. */
  readonly first: (index: number) => object | undefined;
  readonly piece: (index: number, text: string, tokens?: readonly TokenLogprob[]) => object;
  readonly last: (index: number, finish: string) => object;
  /** A choice in a response that is not streamed. */
  readonly whole: (index: number, text: string, finish: string, tokens?: readonly TokenLogprob[]) => object;
}

/** A response under way. */
export interface Run {
  readonly modelId: string;
  readonly choices: number;
  readonly deltas: AsyncGenerator<ChoiceDelta>;
  /** Complete when `deltas` has ended. */
  readonly usage: Usage;
}

interface Whole {
  text: string;
  finish: string;
  tokens?: readonly TokenLogprob[];
  readonly traces: StepTrace[];
}

/** What a streamed response needs to know. */
export interface StreamOptions {
  readonly includeUsage: boolean;
  readonly stallMillis: number;
  /** Hears of an error that comes too late for a status. */
  readonly onError: (error: unknown) => void;
}

/** How one API writes a response, at once or in a stream. */
export interface Writer {
  whole(run: Run): Promise<object>;
  /** Returns when all is sent. @throws what comes before the first piece of text, so that it still gets its HTTP status */
  stream(run: Run, options: StreamOptions, reply: FastifyReply): Promise<void>;
}

/** The writer of completions and chat. */
export function choicesWriter(format: Format): Writer {
  return {
    whole: (run) => respondWhole(format, run),
    stream: (run, options, reply) => respondStream(format, run, options, reply),
  };
}

/** One JSON object, once every choice has ended. */
async function respondWhole(format: Format, run: Run): Promise<object> {
  const choices = Array.from({ length: run.choices }, (): Whole => ({ text: '', finish: '', traces: [] }));
  for await (const { index, text, tokens, trace, finish } of run.deltas) {
    const choice = choices[index] as Whole;
    choice.text += text;
    if (tokens) choice.tokens = [...(choice.tokens ?? []), ...tokens];
    if (trace) choice.traces.push(trace);
    choice.finish = finish ?? choice.finish;
  }
  return {
    ...envelope(format, format.object, run.modelId),
    choices: choices.map(({ text, finish, tokens, traces }, index) => ({
      ...format.whole(index, text, finish, tokens),
      ...(traces.length > 0 && { ptp: traces }),
    })),
    usage: run.usage,
  };
}

/**
 * Server-sent events: a chunk per piece of text, the usage if asked for, then `[DONE]`; an error after the first one
 * is an event too, and the last. Returns when all is sent.
 *
 * @throws what comes before the first piece of text, so that it still gets its HTTP status
 */
async function respondStream(format: Format, run: Run, options: StreamOptions, reply: FastifyReply): Promise<void> {
  const { deltas } = run;
  const head = envelope(format, format.chunkObject, run.modelId);
  const chunk = (choice: object) => ({
    ...head,
    choices: [choice],
    ...(options.includeUsage && { usage: null }),
  });
  let next = await deltas.next();
  const events = new EventStream(takeOver(reply), options.stallMillis);
  try {
    for (let index = 0; index < run.choices; index++) {
      const first = format.first(index);
      if (first) await events.send(chunk(first));
    }
    for (; !next.done; next = await deltas.next()) {
      const { index, text, tokens, trace, finish } = next.value;
      if (text !== '' || tokens?.length || trace) {
        await events.send({ ...chunk(format.piece(index, text, tokens)), ...(trace && { ptp: trace }) });
      }
      if (finish) await events.send(chunk(format.last(index, finish)));
    }
    if (options.includeUsage) await events.send({ ...head, choices: [], usage: run.usage });
    await events.send('[DONE]');
  } catch (error) {
    options.onError(error);
    if (toPtpError(error).code !== 'cancelled') await events.send(openAiError(error).body).catch(() => {});
  } finally {
    await deltas.return(undefined);
    events.end();
  }
}

function envelope(format: Format, object: string, modelId: string): object {
  return {
    id: format.idPrefix + randomUUID().replaceAll('-', ''),
    object,
    created: Math.floor(Date.now() / 1000),
    model: modelId,
    system_fingerprint: `ptp-${manifest.version}-${modelId}`,
  };
}
