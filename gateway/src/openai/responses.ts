import type { FastifyInstance } from 'fastify';
import { openAiError } from '../http/errors.ts';
import { choiceRequests } from './prompt.ts';
import { type EndpointParts, respond } from './respond.ts';
import { parseResponses, type ResponsesRequest } from './responses-request.ts';
import { Answer } from './responses-stream.ts';
import type { ResponseEvents, Run, ServerEvent, Writer } from './stream.ts';

/** POST /v1/responses (https://platform.openai.com/docs/api-reference/responses): answers with a message, calls, or both. */
export function responsesRoute(app: FastifyInstance, parts: EndpointParts): void {
  const { tokenizer, generator, chatTemplate } = parts;
  const { model } = generator;
  app.post('/v1/responses', async (http, reply) => {
    const request = parseResponses(http.body, model);
    return respond(parts, http, reply, {
      request,
      sequences: 1,
      writer: responsesWriter(request),
      prepare: () => {
        const prompt = chatTemplate.encode(request.messages, tokenizer, model, request.toolUse?.tools);
        return choiceRequests([prompt], request, model.contextLength, model, 'input');
      },
    });
  });
}

function responsesWriter(request: ResponsesRequest): Writer {
  return {
    whole: async (run) => {
      const answer = new Answer(request, run);
      // Running through the events adds each delta to the answer.
      for await (const delta of run.deltas) for (const _ of answer.add(delta));
      return answer.response();
    },
    events: (run) => numberedEvents(request, run),
  };
}

/** Events in the order of OpenAI's API; after an error, the last one is `response.failed`. */
function numberedEvents(request: ResponsesRequest, run: Run): ResponseEvents {
  const answer = new Answer(request, run);
  let sequence_number = 0;
  const event = (type: string, fields: object): ServerEvent => {
    return { name: type, data: { type, sequence_number: sequence_number++, ...fields } };
  };
  return {
    *start() {
      yield event('response.created', { response: answer.response() });
      yield event('response.in_progress', { response: answer.response() });
    },
    *add(delta) {
      for (const [type, fields] of answer.add(delta)) yield event(type, fields);
    },
    *end() {
      yield event(`response.${answer.status}`, { response: answer.response() });
    },
    fail(error) {
      const { message } = openAiError(error).body.error;
      return event('response.failed', { response: answer.response({ code: 'server_error', message }) });
    },
  };
}
