import { z } from 'zod';
import manifest from '../../package.json' with { type: 'json' };
import { chatBody } from './chat.ts';
import { completionBody } from './completions.ts';
import { responsesBody } from './responses.ts';
import { detokenizeBody, tokenizeBody } from './token-routes.ts';

/** Summary and body schema of each POST endpoint. */
const POSTS: Readonly<Record<string, readonly [summary: string, body: z.ZodType]>> = {
  '/v1/completions': ['Completes one or more prompts', completionBody],
  '/v1/chat/completions': ['Generates the next message of a conversation', chatBody],
  '/v1/responses': ['Generates a response to a text or a conversation', responsesBody],
  '/tokenize': ['Tokenizes a text or a conversation', tokenizeBody],
  '/detokenize': ['Converts token ids to text', detokenizeBody],
};

/** Summary of each GET endpoint. */
const GETS: Readonly<Record<string, string>> = {
  '/v1/models': 'Lists the served model',
  '/v1/models/{id}': 'Describes the served model, by its id or alias',
  '/version': 'Returns the version of the server',
  '/healthz': 'Returns 200 while the process is running',
  '/health': 'The same as /healthz',
  '/readyz': 'Returns 200 if the server can answer requests, otherwise 503',
  '/metrics': 'Returns metrics as OpenMetrics or Prometheus text, depending on the Accept header',
  '/openapi.json': 'Returns this document',
  '/docs': 'Shows this document as a web page',
};

/**
 * Returns the OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1) of the HTTP API. The schemas that validate
 * the requests also generate this document, so the two cannot differ.
 */
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
      description: 'OpenAI-compatible HTTP API. docs/api.md lists the supported, rejected and ignored fields.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    servers: [{ url: '/' }],
    paths: Object.fromEntries([...gets, ...posts]),
    components: { schemas: { Error: error } },
  };
}

const json = (schema: object) => ({ 'application/json': { schema } });

const nullable = z.string().nullable();
const error = z.toJSONSchema(
  z.object({ error: z.object({ message: z.string(), type: z.string(), param: nullable, code: nullable }) }),
);

const responses = {
  200: { description: 'The result as JSON, or as server-sent events if `stream` is true' },
  default: {
    description: 'An error in the format of OpenAI’s API',
    content: json({ $ref: '#/components/schemas/Error' }),
  },
};
