import { z } from 'zod';
import manifest from '../../package.json' with { type: 'json' };
import { chatBody, completionBody } from './request.ts';
import { responsesBody } from './responses-request.ts';
import { detokenizeBody, tokenizeBody } from './tokens-request.ts';

/** Endpoints with a body: what they are for, and the schema that their bodies are checked by. */
const POSTS: Readonly<Record<string, readonly [summary: string, body: z.ZodType]>> = {
  '/v1/completions': ['Continues texts', completionBody],
  '/v1/chat/completions': ['Answers a conversation', chatBody],
  '/v1/responses': ['Answers a text or a conversation', responsesBody],
  '/tokenize': ['Token ids of a text or a conversation', tokenizeBody],
  '/detokenize': ['The text of token ids', detokenizeBody],
};

const GETS: Readonly<Record<string, string>> = {
  '/v1/models': 'The served model',
  '/v1/models/{id}': 'The served model by its id or alias',
  '/version': 'Version of the server',
  '/healthz': 'Whether the process is up',
  '/readyz': 'Whether it can answer requests',
  '/metrics': 'Metrics in OpenMetrics, or in Prometheus’ older text format, by the Accept header',
  '/openapi.json': 'This document',
  '/docs': 'This document as a page',
};

/** OpenAPI 3.1 of the HTTP API (https://spec.openapis.org/oas/v3.1.1), from the schemas that requests are checked by. */
export function openApi(): object {
  const gets = Object.entries(GETS).map(([path, summary]) => {
    const id = { name: 'id', in: 'path', required: true, schema: { type: 'string' } };
    return [path, { get: { summary, ...(path.includes('{id}') && { parameters: [id] }), responses } }];
  });
  const posts = Object.entries(POSTS).map(([path, [summary, body]]) => {
    const schema = z.toJSONSchema(body, { io: 'input', unrepresentable: 'any' });
    return [path, { post: { summary, requestBody: { required: true, content: json(schema) }, responses } }];
  });
  return {
    openapi: '3.1.1',
    info: {
      title: 'ptp-server',
      version: manifest.version,
      description: 'OpenAI-compatible HTTP API. docs/api.md tells what is supported, refused and ignored.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    paths: Object.fromEntries([...gets, ...posts]),
    components: { schemas: { Error: error } },
  };
}

const json = (schema: object) => ({ 'application/json': { schema } });

const error = {
  type: 'object',
  required: ['error'],
  properties: {
    error: {
      type: 'object',
      required: ['message', 'type', 'param', 'code'],
      properties: {
        message: { type: 'string' },
        type: { type: 'string' },
        param: { type: ['string', 'null'] },
        code: { type: ['string', 'null'] },
      },
    },
  },
};

const responses = {
  200: { description: 'The answer, as JSON or, if `stream` is true, as server-sent events' },
  default: {
    description: 'An error, in the form of OpenAI’s API',
    content: json({ $ref: '#/components/schemas/Error' }),
  },
};
