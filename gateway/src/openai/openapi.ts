import { z } from 'zod';
import manifest from '../../package.json' with { type: 'json' };
import { chatBody } from './chat.ts';
import { completionBody } from './completions.ts';
import { responsesBody } from './responses.ts';
import { detokenizeBody, tokenizeBody } from './token-routes.ts';

interface Post {
  readonly tag: string;
  readonly summary: string;
  readonly body: z.ZodType;
  /** Body that pages fill in. The server accepts it. */
  readonly example: object;
}

/** Groups of endpoints, in the order in which pages show them. */
const TAGS = [
  { name: 'Generation', description: 'Text, conversations and tool calls' },
  { name: 'Models and tokens', description: 'The served model and its tokenizer' },
  { name: 'Operation', description: 'Health, metrics and this description' },
];

const sampling = { max_tokens: 60, temperature: 0.7, seed: 1 };
const messages = [{ role: 'user', content: 'A function that adds two numbers.' }];

const POSTS: Readonly<Record<string, Post>> = {
  '/v1/completions': {
    tag: 'Generation',
    summary: 'Completes one or more prompts',
    body: completionBody,
    example: { model: 'default', prompt: 'export interface User {', ...sampling },
  },
  '/v1/chat/completions': {
    tag: 'Generation',
    summary: 'Generates the next message of a conversation',
    body: chatBody,
    example: { model: 'default', messages, ...sampling },
  },
  '/v1/responses': {
    tag: 'Generation',
    summary: 'Generates a response to a text or a conversation',
    body: responsesBody,
    example: { model: 'default', input: 'A function that adds two numbers.', max_output_tokens: 60, temperature: 0.7 },
  },
  '/tokenize': {
    tag: 'Models and tokens',
    summary: 'Tokenizes a text or a conversation',
    body: tokenizeBody,
    example: { prompt: 'export interface User {' },
  },
  '/detokenize': {
    tag: 'Models and tokens',
    summary: 'Converts token ids to text',
    body: detokenizeBody,
    example: { tokens: [100, 200, 300] },
  },
};

/** Tag and summary of each GET endpoint. */
const GETS: Readonly<Record<string, readonly [tag: string, summary: string]>> = {
  '/v1/models': ['Models and tokens', 'Lists the served model'],
  '/v1/models/{id}': ['Models and tokens', 'Describes the served model, by its id or alias'],
  '/readyz': ['Operation', 'Returns 200 if the server can answer requests, otherwise 503'],
  '/healthz': ['Operation', 'Returns 200 while the process is running'],
  '/health': ['Operation', 'The same as /healthz'],
  '/metrics': ['Operation', 'Returns metrics as OpenMetrics or Prometheus text, depending on the Accept header'],
  '/version': ['Operation', 'Returns the version of the server'],
  '/openapi.json': ['Operation', 'Returns this document'],
  '/docs': ['Operation', 'Shows this document as a web page'],
};

/** Parameter of the route for one model. */
const id = { name: 'id', in: 'path', required: true, schema: { type: 'string' }, example: 'default' };

/**
 * Returns the OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1) of the HTTP API. The schemas that validate
 * the requests also generate this document, so the two cannot differ.
 */
export function openApi(): object {
  const gets = Object.entries(GETS).map(([path, [tag, summary]]) => {
    return [path, { get: { tags: [tag], summary, ...(path.includes('{id}') && { parameters: [id] }), responses } }];
  });
  const posts = Object.entries(POSTS).map(([path, { tag, summary, body, example }]) => {
    const schema = z.toJSONSchema(body, { io: 'input', unrepresentable: 'any' });
    const content = { 'application/json': { schema, example } };
    return [path, { post: { tags: [tag], summary, requestBody: { required: true, content }, responses } }];
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
    tags: TAGS,
    paths: Object.fromEntries([...posts, ...gets]),
    // Servers without API keys ignore the key.
    security: [{}, { key: [] }],
    components: { schemas: { Error: error }, securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
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
