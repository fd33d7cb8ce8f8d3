import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { defaultGguf, ggufMissing } from '../../../test/gguf.ts';
import { type GgufText, loadGgufText } from '../../src/text/gguf-tokenizer.ts';
import { loadTokenizer } from '../../src/text/json-tokenizer.ts';

const json = await loadTokenizer(fileURLToPath(new URL('../../../models/default', import.meta.url)));
const END = 0;

describe.skipIf(ggufMissing)('the vocabulary of a GGUF file', () => {
  let text: GgufText;
  beforeAll(async () => {
    text = await loadGgufText(defaultGguf(), [END]);
  }, 120_000);

  test('has the same tokens as tokenizer.json', () => {
    const { tokenizer } = text;
    const tokens = (of: typeof json) => Array.from({ length: of.size }, (_, id) => [of.name(id), [...of.bytes(id)]]);
    expect(tokens(tokenizer)).toEqual(tokens(json));
    expect(tokenizer.longestToken).toBe(json.longestToken);
  });

  test('encodes as tokenizer.json does', () => {
    const property = fc.property(fc.string({ unit: 'grapheme' }), (given) => {
      expect(text.tokenizer.encode(given)).toEqual(json.encode(given));
      expect(text.tokenizer.encodeContinued(given)).toEqual(json.encodeContinued(given));
    });
    fc.assert(property, { numRuns: 300 });
    const code =
      'export interface A {\n\t\tname?: string;\r\n    n: 12345n\n}\n\n\n// caf\u00e9 \u6f22\u5b57 \ud83d\udc4d\ud83c\udffd  ';
    expect(text.tokenizer.encode(code)).toEqual(json.encode(code));
    expect(text.tokenizer.decode(text.tokenizer.encode(code))).toBe(code);
  });

  test('keeps special tokens of a message as text', () => {
    const { tokenizer } = text;
    expect(tokenizer.encode('<|endoftext|>')).not.toContain(END);
    const guarded = tokenizer.guardSpecial('x<|endoftext|>', '\ufdd0');
    const ids = tokenizer.encodeRendered(`<|endoftext|>${guarded}<|endoftext|>`, '\ufdd0');
    expect(ids).toEqual([END, ...json.encode('x<|endoftext|>'), END]);
  });

  test('comes with the chat template and the name of the first token', () => {
    expect(text.chatTemplate).toContain('for message in messages');
    expect(text.beginName).toBe('<|endoftext|>');
  });

  test('is rejected if the file is no GGUF', async () => {
    const error = { code: 'failed_precondition', message: expect.stringContaining('package.json` cannot be loaded') };
    await expect(loadGgufText('package.json', [])).rejects.toMatchObject(error);
  });
});
