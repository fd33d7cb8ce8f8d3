import { readFile } from 'node:fs/promises';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { JsonTokenizer } from '../../src/text/json-tokenizer.ts';
import { tokenizer } from '../testing/test-server.ts';

const file = JSON.parse(await readFile(new URL('../../../test/fixtures/tokenizer.json', import.meta.url), 'utf8'));
const decode = (ids: number[]) =>
  new TextDecoder('utf-8', { ignoreBOM: true }).decode(Buffer.concat(ids.map((id) => tokenizer.bytes(id))));

describe('bytes', () => {
  test('of every token match the library', () => {
    const library = new HuggingFaceTokenizer(file, {});
    for (let id = 1; id < tokenizer.size; id++) {
      expect(decode([id]), tokenizer.name(id)).toBe(library.decode([id], { clean_up_tokenization_spaces: false }));
    }
  });

  test('cover all 256, so that every text can be encoded', () => {
    const single = new Set<number>();
    for (let id = 0; id < tokenizer.size; id++) {
      const bytes = tokenizer.bytes(id);
      if (bytes.length === 1) single.add(bytes[0] as number);
    }
    expect(single.size).toBe(256);
  });

  test('are empty for special tokens and ids outside the vocabulary', () => {
    expect(tokenizer.bytes(0)).toHaveLength(0);
    expect(tokenizer.bytes(tokenizer.size)).toHaveLength(0);
  });
});

describe('encode', () => {
  test('round-trips any text', () => {
    const property = fc.property(fc.string({ unit: 'grapheme' }), (text) => {
      expect(decode(tokenizer.encode(text))).toBe(text);
    });
    fc.assert(property, { numRuns: 200 });
  });

  test('encodes special tokens as text', () => {
    const ids = tokenizer.encode('a<|endoftext|>b');
    expect(ids).not.toContain(0);
    expect(decode(ids)).toBe('a<|endoftext|>b');
  });
});

describe('encodeRendered', () => {
  test('recognises special tokens, except guarded ones', () => {
    const guarded = tokenizer.guardSpecial('x<|endoftext|>', '\ufdd0');
    const ids = tokenizer.encodeRendered(`<|endoftext|>${guarded}<|endoftext|>`, '\ufdd0');
    expect(ids).toEqual([0, ...tokenizer.encode('x<|endoftext|>'), 0]);
  });
});

describe("SentencePiece's vocabularies with byte fallback", () => {
  const read = async (name: string) =>
    JSON.parse(await readFile(new URL(`../../../test/fixtures/${name}`, import.meta.url), 'utf8'));

  test.each(['prepend', 'metaspace'])('match the Rust tokenizers library: %s', async (variant) => {
    const { tokenizer: json, forms, vectors } = await read('sentencepiece.json');
    const fallback = new JsonTokenizer({ ...json, ...forms[variant] });
    for (const { text, ids } of vectors[variant]) expect(fallback.encodeRendered(text, '\ufdd0'), text).toEqual(ids);
    expect(vectors[variant].length).toBeGreaterThan(5);
    const bytes = fallback.encode('caf\u00e9 \u6f22\n').map((id) => fallback.bytes(id));
    expect(Buffer.concat(bytes).toString()).toBe(' caf\u00e9 \u6f22\n');
    expect(fallback.bytes(0)).toHaveLength(0);
    expect(fallback.decodeWhole(fallback.encode('caf\u00e9 \u6f22\n'))).toBe('caf\u00e9 \u6f22\n');
  });
});

test('other kinds of vocabulary are rejected', () => {
  expect(() => new JsonTokenizer({ ...file, decoder: { type: 'WordPiece' } })).toThrow(
    'must have a byte-level vocabulary, or SentencePiece with byte fallback',
  );
});
