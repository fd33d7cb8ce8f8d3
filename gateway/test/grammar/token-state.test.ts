import { describe, expect, test } from 'vitest';
import { GrammarCache } from '../../src/grammar/cache.ts';
import { choice, type Expression, literal } from '../../src/grammar/expression.ts';
import { jsonSchemaGrammar } from '../../src/grammar/json-schema.ts';
import { jsonObject } from '../../src/grammar/json-text.ts';
import { MemoryLimit } from '../../src/grammar/memory.ts';
import { regexGrammar } from '../../src/grammar/regex.ts';
import type { GrammarState } from '../../src/grammar/types.ts';
import { randoms } from './grammar-texts.ts';

/** Vocabulary of all bytes, some longer tokens, and a token that ends the text. */
const words = [
  'a","',
  'bc"',
  '\\"',
  '\\u00',
  '\\ud83d',
  'é"}',
  '"a',
  '""',
  ' "',
  '": ',
  '","',
  '{"',
  '"}',
  'name',
  '"name"',
  'true',
  'tr',
  'ab',
  'abc',
  '12',
  '0.5',
  'é',
  '\n  ',
  '[]',
];
const tokens = [
  ...Array.from({ length: 256 }, (_, byte) => Uint8Array.of(byte)),
  ...words.map((word) => Buffer.from(word)),
];
const END = tokens.length;
const model = { vocabulary: END + 1, endOfText: END };
const tokenizer = { bytes: (id: number) => tokens[id] ?? new Uint8Array() };

const schema = {
  type: 'object',
  properties: {
    name: { type: 'string', maxLength: 40 },
    kind: { enum: ['abc', 'abd', true] },
    size: { type: 'number', minimum: 0.5, maximum: 12 },
    parts: { type: 'array', items: { $ref: '#' }, maxItems: 2 },
  },
  required: ['name', 'parts'],
};
const grammars: Record<string, Expression> = {
  'JSON Schema': jsonSchemaGrammar(schema, 'schema'),
  'any object': jsonObject,
  'counted strings': jsonSchemaGrammar(
    { type: 'array', items: { anyOf: [{ type: 'string', minLength: 2, maxLength: 5 }, { type: 'null' }] } },
    'schema',
  ),
  'strings and others': jsonSchemaGrammar({ anyOf: [{ type: 'string', maxLength: 3 }, { type: 'string' }] }, 'schema'),
  'different strings at one position': jsonSchemaGrammar(
    { anyOf: [{ format: 'date', type: 'string' }, { pattern: '^[^,]*"[ab]*$', type: 'string' }, { enum: ['"a', 1] }] },
    'schema',
  ),
  'names that are not declared': jsonSchemaGrammar(
    { type: 'object', properties: { a: {}, ab: { type: 'string' }, '"name"': {}, é: {} } },
    'schema',
    { open: true },
  ),
  'a record': jsonSchemaGrammar(
    { properties: { name: {}, nab: {} }, additionalProperties: { type: 'string' } },
    'schema',
  ),
  regex: regexGrammar('^[a-é]{2,9}(, (abc)+\\d)*$', 'utf8'),
};

const allowedIn = (mask: Uint8Array | undefined, id: number) => (((mask?.[id >> 3] as number) >> (id & 7)) & 1) === 1;

describe.each(Object.entries(grammars))('%s', (name, grammar) => {
  const start = () => new GrammarCache(tokenizer, model).start({ grammar, key: name });

  test('the mask has the bits of exactly those tokens that lead to a state', () => {
    const random = randoms(11);
    for (let walk = 0; walk < 10; walk++) {
      let state = start();
      for (let length = 0; length < 30; length++) {
        const { mask } = state;
        const ids = Array.from({ length: model.vocabulary }, (_, id) => id).filter((id) => state.after(id));
        expect(Array.from({ length: mask.length * 8 }, (_, id) => id).filter((id) => allowedIn(mask, id))).toEqual(ids);
        const id = ids[Math.floor(random() * ids.length)] as number;
        if (id === END) break;
        state = state.after(id) as typeof state;
      }
    }
  });

  test('forced tokens are allowed, and their bytes are the only ones', () => {
    let state = start();
    for (const id of state.forced(8)) {
      const first = tokens[id]?.[0];
      const bytes = Array.from({ length: 256 }, (_, byte) => byte).filter((byte) => allowedIn(state.mask, byte));
      expect(bytes).toEqual([first]);
      state = state.after(id) as typeof state;
      expect(state).toBeDefined();
    }
  });
});

test('requests do not build the tries, because that takes long', () => {
  let reads = 0;
  const counted = { bytes: (id: number) => [tokenizer.bytes(id), reads++][0] as Uint8Array };
  const cache = new GrammarCache(counted, model);
  expect(reads).toBeGreaterThanOrEqual(model.vocabulary);
  reads = 0;
  expect(cache.start({ grammar: jsonObject, key: 'a' }).mask.some((byte) => byte > 0)).toBe(true);
  expect(cache.isExtended(Uint8Array.of(0x7b))).toBe(true);
  expect(reads).toBeLessThan(model.vocabulary);
});

test('equal keys share one state, so masks are computed once', () => {
  const cache = new GrammarCache(tokenizer, model);
  expect(cache.start({ grammar: jsonObject, key: 'a' })).toBe(cache.start({ grammar: jsonObject, key: 'a' }));
});

test('the states of a long answer stay within the memory limit', () => {
  const limit = 4 * 2 ** 20;
  const memory = new MemoryLimit(limit);
  const grammar = jsonSchemaGrammar({ type: 'string', pattern: '^.{1,100000}$' }, 'schema');
  let state: GrammarState | undefined = new GrammarCache(tokenizer, model, memory).start({ grammar, key: 'a' });
  state = state.after(0x22);
  for (let length = 0; length < 5000; length++) {
    state = state?.after(0x61);
    expect(memory.total).toBeLessThanOrEqual(limit);
  }
  expect(allowedIn(state?.mask, 0x22)).toBe(true);
  expect(allowedIn(state?.mask, 0x0a)).toBe(false);
  expect(state?.after(0x22)?.after(END)).toBeDefined();
});

test('a start state stays right when other grammars free its memory repeatedly', () => {
  const memory = new MemoryLimit(2 ** 20);
  const cache = new GrammarCache(tokenizer, model, memory);
  const words = ['yes', 'no', 'maybe'];
  const constraint = { grammar: choice(...words.map(literal)), key: 'words' };
  const other = jsonSchemaGrammar({ type: 'string', pattern: '^.{1,100000}$' }, 'schema');
  const masks = (state: GrammarState | undefined, text: string) => {
    const found = [...Buffer.from(text)].map((byte) => {
      const { mask } = state as GrammarState;
      state = state?.after(byte);
      return mask;
    });
    return [...found, state?.mask];
  };
  const start = cache.start(constraint);
  for (const word of [...words, ...words]) {
    const fresh = new GrammarCache(tokenizer, model).start(constraint);
    expect(masks(start, word)).toEqual(masks(fresh, word));
    let state: GrammarState | undefined = cache.start({ grammar: other, key: 'other' }).after(0x22);
    for (let length = 0; length < 1000; length++) state = state?.after(0x61);
  }
});

test('masks of a counted string are shared while the limits are far away', () => {
  const grammar = jsonSchemaGrammar({ type: 'string', maxLength: 1000 }, 'schema');
  const first = new GrammarCache(tokenizer, model).start({ grammar, key: 'a' }).after(0x22)?.after(0x61);
  expect(first?.after(0x61)?.mask).toBe(first?.mask);
});
