import fc from 'fast-check';
import { openApi } from '../../gateway/src/openai/openapi.ts';
import { jsonSchema, regex } from './forms.ts';

interface Operation {
  readonly requestBody?: {
    readonly content: { readonly 'application/json': { readonly schema: { readonly properties: object } } };
  };
}

/** Fields that make most requests valid, so that the server gets to their other fields. */
const fine: Readonly<Record<string, object>> = {
  '/v1/completions': { prompt: 'a', max_tokens: 8 },
  '/v1/chat/completions': { messages: [{ role: 'user', content: 'hi' }], max_tokens: 8 },
  '/v1/responses': { input: 'hi', max_output_tokens: 8 },
  '/tokenize': { prompt: 'a' },
  '/detokenize': { tokens: [1, 2] },
};
export const { paths } = openApi() as { paths: Record<string, { post?: Operation }> };
export const posts = Object.entries(paths).flatMap(([path, { post }]) => {
  const schema = post?.requestBody?.content['application/json'].schema;
  return schema ? [{ path, fields: Object.keys(schema.properties).filter((field) => field !== 'model') }] : [];
});

const call = { id: 'c', type: 'function', function: { name: 'f', arguments: '{"a":1}' } };
/** Generates plausible and arbitrary values. */
const value = fc.oneof(
  fc.jsonValue({ maxDepth: 2 }),
  fc.integer({ min: -2, max: 40 }),
  fc.double({ min: -3, max: 3, noNaN: true }),
  fc.constantFrom(true, false, null, 'a', 'let x', '', [], {}, [1, 2, 3], ['a', 'b'], { type: 'text' }, { '5': 1.5 }),
  fc.constantFrom([{ role: 'user', content: 'hi' }], [{ role: 'assistant' }], { draft: false }, { trace: true }),
  fc.constantFrom(2 ** 53, -1e300, '\ud800', '__proto__', 'x'.repeat(30_000), new Array(300).fill(1), [[1], [2]]),
  fc.constantFrom([{ role: 'assistant', tool_calls: [call] }], [{ role: 'tool', tool_call_id: 'c', content: '' }]),
);
const share = fc.double({ min: 0.1, max: 1, noNaN: true });
const few = fc.integer({ min: 1, max: 8 });
const tool = fc.record({ name: fc.constantFrom('f', 'g', 'é'), parameters: jsonSchema }, { requiredKeys: ['name'] });
/** Plausible values by field. The server would reject arbitrary values too early. */
const plausible: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
  response_format: fc.oneof(
    jsonSchema.map((schema) => ({ type: 'json_schema', json_schema: { name: 'a', schema } })),
    fc.constant({ type: 'json_object' }),
  ),
  text: jsonSchema.map((schema) => ({ format: { type: 'json_schema', name: 'a', schema } })),
  structured_outputs: fc.oneof(
    fc.record({ json: jsonSchema }),
    fc.record({ regex }),
    fc.record({ choice: fc.array(fc.string({ unit: 'binary' }), { maxLength: 4 }) }),
  ),
  tools: fc.array(tool, { maxLength: 2 }).map((tools) => tools.map((each) => ({ type: 'function', function: each }))),
  tool_choice: fc.constantFrom('required', 'auto', { type: 'function', function: { name: 'f' } }),
  stream: fc.constant(true),
  stream_options: fc.constant({ include_usage: true }),
  logit_bias: fc.dictionary(
    fc.constantFrom('0', '5', '256', '257', '-1', 'a', ''),
    fc.integer({ min: -101, max: 101 }),
  ),
  prediction: fc.record({ type: fc.constant('content'), content: fc.string() }),
  ptp: fc.record(
    {
      draft_length: fc.nat(65),
      draft_mode: fc.constantFrom('auto', 'plain', 'overlap', 'sequential'),
      trace: fc.boolean(),
    },
    { requiredKeys: [] },
  ),
  seed: fc.oneof(fc.maxSafeInteger(), fc.constantFrom(-1, 2 ** 63, 0.5)),
  n: fc.constantFrom(1, 2, 8, 9),
  ...Object.fromEntries(
    ['temperature', 'top_p', 'min_p', 'presence_penalty', 'frequency_penalty', 'repetition_penalty'].map((name) => [
      name,
      share,
    ]),
  ),
  ...Object.fromEntries(
    ['top_k', 'max_tokens', 'max_completion_tokens', 'max_output_tokens', 'min_tokens'].map((name) => [name, few]),
  ),
  ...Object.fromEntries(['echo', 'ignore_eos', 'parallel_tool_calls', 'store'].map((name) => [name, fc.boolean()])),
  stop: fc.constantFrom('a', ['a', '\n'], 'é'),
  stop_token_ids: fc.array(fc.nat(256), { maxLength: 3 }),
  metadata: fc.constant({ a: 'b' }),
};

/** Request with a JSON body, generated from the document at /openapi.json. */
export interface Shaped {
  readonly path: string;
  readonly body: object;
  /** True if the client disconnects once it has the response's headers. */
  readonly leaves: boolean;
}
export const shaped: fc.Arbitrary<Shaped> = fc.constantFrom(...posts).chain(({ path, fields }) => {
  const field = fc.constantFrom(...fields).chain((name) => {
    const some = plausible[name];
    const given = some ? fc.oneof({ weight: 6, arbitrary: some }, value) : value;
    return given.map((each): [string, unknown] => [name, each]);
  });
  return fc.record({
    path: fc.constant(path),
    body: fc
      .array(field, { maxLength: 3 })
      .map((more) => ({ model: 'default', ...fine[path], ...Object.fromEntries(more) })),
    leaves: fc.oneof({ weight: 30, arbitrary: fc.constant(false) }, fc.constant(true)),
  });
});
