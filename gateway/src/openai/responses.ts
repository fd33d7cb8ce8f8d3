import type { FastifyInstance } from 'fastify';
import { choiceRequests } from './prompt.ts';
import { type EndpointParts, respond } from './respond.ts';
import { parseResponses } from './responses-request.ts';
import { ResponsesWriter } from './responses-stream.ts';

/** POST /v1/responses (https://platform.openai.com/docs/api-reference/responses): answers with a message, calls, or both. */
export function responsesRoute(app: FastifyInstance, parts: EndpointParts): void {
  const { tokenizer, generator, chatTemplate } = parts;
  const { model } = generator;
  app.post('/v1/responses', async (http, reply) => {
    const request = parseResponses(http.body, model);
    return respond(parts, http, reply, {
      request,
      sequences: 1,
      newWriter: (run) => new ResponsesWriter(request, run),
      prepare: () => {
        const prompt = chatTemplate.encode(request.messages, tokenizer, model, request.toolUse?.tools);
        return choiceRequests([prompt], request, model.contextLength, model, 'input');
      },
    });
  });
}
