import { toPtpError } from '@ptp/protocol/errors';
import type { FastifyReply } from 'fastify';
import { openAiError } from '../http/errors.ts';
import { takeOver } from '../http/reply.ts';
import { EventStream } from '../http/sse.ts';
import type { ResponsesRequest } from './responses-request.ts';
import { Answer } from './responses-stream.ts';
import type { Run, StreamOptions, Writer } from './stream.ts';

/** https://platform.openai.com/docs/api-reference/responses: a message, calls, or both. */
export function responsesWriter(asked: ResponsesRequest): Writer {
  return {
    whole: async (run) => {
      const answer = new Answer(asked, run);
      // the events of a stream that nobody reads
      for await (const delta of run.deltas) for (const _ of answer.add(delta));
      return answer.response();
    },
    stream: (run, options, reply) => stream(new Answer(asked, run), run, options, reply),
  };
}

/** Events in the order of OpenAI's API; an error after the first one is `response.failed`, and the last. */
async function stream(answer: Answer, run: Run, options: StreamOptions, reply: FastifyReply): Promise<void> {
  const { deltas } = run;
  let next = await deltas.next();
  const events = new EventStream(takeOver(reply), options.stallMillis);
  let sequence_number = 0;
  const send = (type: string, fields: object) =>
    events.send({ type, sequence_number: sequence_number++, ...fields }, type);
  try {
    await send('response.created', { response: answer.response() });
    await send('response.in_progress', { response: answer.response() });
    for (; !next.done; next = await deltas.next()) {
      for (const [type, fields] of answer.add(next.value)) await send(type, fields);
    }
    await send(`response.${answer.status}`, { response: answer.response() });
  } catch (error) {
    options.onError(error);
    const { body } = openAiError(error);
    const failed = { code: 'server_error', message: body.error.message };
    if (toPtpError(error).code !== 'cancelled') {
      await send('response.failed', { response: answer.response(failed) }).catch(() => {});
    }
  } finally {
    await deltas.return(undefined);
    events.end();
  }
}
