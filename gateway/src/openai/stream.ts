import { toPtpError } from '@ptp/protocol/errors';
import type { FastifyReply } from 'fastify';
import manifest from '../../package.json' with { type: 'json' };
import { openAiError } from '../http/errors.ts';
import { newId } from '../http/ids.ts';
import { EventStream } from '../http/sse.ts';
import type { ChoiceDelta, Usage } from './choices.ts';
import type { TokenLogprob } from './logprobs.ts';
import type { StepTrace } from './step-trace.ts';

/** A response in progress. */
export interface Run {
  readonly modelId: string;
  /** Number of choices. */
  readonly choices: number;
  readonly deltas: AsyncGenerator<ChoiceDelta>;
  /** Complete when `deltas` has ended. */
  readonly usage: Usage;
  /** Sends the usage at the end of a stream. */
  readonly includeUsage: boolean;
}

/** A server-sent event. */
export interface ServerEvent {
  readonly name?: string;
  readonly data: object | '[DONE]';
}

/** The events of one streamed response. */
export interface ResponseEvents {
  start(): Iterable<ServerEvent>;
  add(delta: ChoiceDelta): Iterable<ServerEvent>;
  end(): Iterable<ServerEvent>;
  fail(error: unknown): ServerEvent;
}

/** Writes the responses of one API, as a whole or as a stream. */
export interface Writer {
  whole(run: Run): Promise<object>;
  events(run: Run): ResponseEvents;
}

/**
 * Sends a response as server-sent events and returns when everything is sent. An error after the first piece of text
 * becomes the last event.
 *
 * @param onError called with an error that comes too late for an HTTP status
 * @throws the error that precedes the first piece of text, so that it still gets its HTTP status
 */
export async function sendStream(
  writer: Writer,
  run: Run,
  reply: FastifyReply,
  stallMillis: number,
  onError: (error: unknown) => void,
): Promise<void> {
  const { deltas } = run;
  let next = await deltas.next();
  const stream = new EventStream(reply, stallMillis);
  const events = writer.events(run);
  const send = async (batch: Iterable<ServerEvent>) => {
    for (const { data, name } of batch) await stream.send(data, name);
  };
  try {
    await send(events.start());
    for (; !next.done; next = await deltas.next()) await send(events.add(next.value));
    await send(events.end());
  } catch (error) {
    onError(error);
    if (toPtpError(error).code !== 'cancelled') await send([events.fail(error)]).catch(() => {});
  } finally {
    await deltas.return(undefined);
    stream.end();
  }
}

/** Differences between completions and chat; each function makes one entry of `choices`. */
export interface Format {
  readonly idPrefix: string;
  readonly object: string;
  readonly chunkObject: string;
  /** Chunk that precedes a choice's text, if any. */
  readonly first: (index: number) => object | undefined;
  readonly piece: (index: number, text: string, tokens?: readonly TokenLogprob[]) => object;
  readonly last: (index: number, finish: string) => object;
  /** A choice of a response that is not streamed. */
  readonly whole: (index: number, text: string, finish: string, tokens?: readonly TokenLogprob[]) => object;
}

/** The writer of completions and chat. */
export function choicesWriter(format: Format): Writer {
  return { whole: (run) => wholeResponse(format, run), events: (run) => chunks(format, run) };
}

interface WholeChoice {
  text: string;
  finish: string;
  tokens?: TokenLogprob[];
  readonly traces: StepTrace[];
}

async function wholeResponse(format: Format, run: Run): Promise<object> {
  const choices = Array.from({ length: run.choices }, (): WholeChoice => ({ text: '', finish: '', traces: [] }));
  for await (const { index, text, tokens, trace, finish } of run.deltas) {
    const choice = choices[index] as WholeChoice;
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

/** A chunk per piece of text, the usage if requested, then `[DONE]`. */
function chunks(format: Format, { modelId, choices, usage, includeUsage }: Run): ResponseEvents {
  const head = envelope(format, format.chunkObject, modelId);
  const chunk = (choice: object, more: object | false | undefined = undefined): ServerEvent => ({
    data: { ...head, choices: [choice], ...(includeUsage && { usage: null }), ...more },
  });
  return {
    *start() {
      for (let index = 0; index < choices; index++) {
        const first = format.first(index);
        if (first) yield chunk(first);
      }
    },
    *add({ index, text, tokens, trace, finish }) {
      if (text !== '' || tokens?.length || trace) {
        yield chunk(format.piece(index, text, tokens), trace && { ptp: trace });
      }
      if (finish) yield chunk(format.last(index, finish));
    },
    *end() {
      if (includeUsage) yield { data: { ...head, choices: [], usage } };
      yield { data: '[DONE]' };
    },
    fail: (error) => ({ data: openAiError(error).body }),
  };
}

function envelope(format: Format, object: string, modelId: string): object {
  return {
    id: newId(format.idPrefix),
    object,
    created: Math.floor(Date.now() / 1000),
    model: modelId,
    system_fingerprint: `ptp-${manifest.version}-${modelId}`,
  };
}
