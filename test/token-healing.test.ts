import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { GenerationRequest } from '../gateway/src/decode/types.ts';
import { GrammarCache } from '../gateway/src/grammar/cache.ts';
import { type ChoiceRequest, generateChoices, newUsage } from '../gateway/src/openai/choices.ts';
import { constraintOf } from '../gateway/src/openai/output-format.ts';
import { loadTokenizer } from '../gateway/src/text/json-tokenizer.ts';
import { healPrompt } from '../gateway/src/text/token-healing.ts';
import type { Tokenizer } from '../gateway/src/text/tokenizer.ts';
import { stepsOf } from './generated.ts';
import { TestPair } from './test-pair.ts';

// The bundled pair, because healing needs tokens of several bytes.
const model = new URL('../models/default', import.meta.url).pathname;
const PROMPT = 'export interface User {\n';
const SEEDS = 50;

let pair: TestPair;
let tokenizer: Tokenizer;
let grammars: GrammarCache;
beforeAll(async () => {
  const limits = { length: 5, budget: 16, mode: 'overlap', ahead: 4 } as const;
  pair = await TestPair.onnx(model, { limits, prefixCacheBytes: 2 ** 20, verifiers: 2 });
  tokenizer = await loadTokenizer(model);
  grammars = new GrammarCache(tokenizer, pair.generator.model);
}, 120_000);
afterAll(() => pair?.stop());

const json = () => constraintOf({ response_format: { type: 'json_object' } });
const ask = (seed: number, fields: Partial<ChoiceRequest> = {}): ChoiceRequest => ({
  prompt: [pair.generator.model.endOfText, ...tokenizer.encode(PROMPT)],
  sampling: { temperature: 0.7, topK: 0, topP: 1 },
  maxTokens: 8,
  seed: BigInt(seed),
  stop: [],
  first: true,
  ...fields,
});
function healed(seed: number, constraint?: ReturnType<typeof json>, fields: Partial<ChoiceRequest> = {}) {
  const request = ask(seed, fields);
  const parts = healPrompt(request.prompt, tokenizer, (bytes) => grammars.isExtended(bytes));
  if (!parts) throw new Error('nothing to heal');
  return { ...request, ...parts, grammar: grammars.startAfter(parts.healed, constraint) };
}

async function textOf(request: ChoiceRequest, onPiece = async () => {}) {
  const figures = { usage: newUsage(request.prompt.length), warnings: new Set<string>() };
  const signal = new AbortController().signal;
  let text = '';
  const tokens = [];
  for await (const delta of generateChoices(pair.generator, tokenizer, [request], figures, signal)) {
    text += delta.text;
    tokens.push(...(delta.tokens ?? []));
    await onPiece();
  }
  return { text, tokens, count: figures.usage.completion_tokens };
}

describe('a healed prompt', () => {
  test('leaves the model all tokens that begin with its end', async () => {
    const closes = async (request: (seed: number) => ChoiceRequest) => {
      const texts = await Promise.all(Array.from({ length: SEEDS }, (_, seed) => textOf(request(seed))));
      return texts.filter(({ text }) => text.startsWith('}')).length;
    };
    const short = { maxTokens: 1, drafting: false };
    expect(await closes((seed) => ask(seed, short))).toBeGreaterThan(SEEDS / 3);
    expect(await closes((seed) => healed(seed, undefined, { ...short, maxTokens: 2 }))).toBeLessThan(SEEDS / 10);
  }, 120_000);

  // test/choosing.test.ts compares 50 texts for each feature, with a model whose tokens are bytes.
  test('gives the same texts and log-probabilities with and without the drafter', async () => {
    const logprobs = { logprobs: true, topCount: 3 };
    const variants = [
      (seed: number) => healed(seed, undefined, logprobs),
      (seed: number) => healed(seed, undefined, { ...logprobs, stop: [';', '\n'], minTokens: 3 }),
      (seed: number) => healed(seed, json(), logprobs),
    ];
    const requests = Array.from({ length: 18 }, (_, seed) => variants[seed % 3]?.(seed) ?? healed(seed));
    const drafted = await Promise.all(requests.map((request) => textOf(request)));
    const plain = [];
    for (const request of requests) plain.push(await textOf({ ...request, drafting: false }));
    expect(drafted).toEqual(plain);
    expect(new Set(plain.map(({ text }) => text)).size).toBeGreaterThan(9);
    for (const [seed, { text }] of plain.entries()) if (seed % 3 === 2) expect(text).toMatch(/^\{/);
  }, 120_000);

  test('gives the same text if the verifier is lost', async () => {
    const request = healed(3, undefined, { maxTokens: 16, draftLimits: { length: 1, mode: 'plain', lookup: false } });
    const { text } = await textOf(request);
    let pieces = 0;
    const lost = await textOf(request, async () => {
      if (pieces++ !== 0) return;
      await pair.stopVerifier(0);
      await pair.startVerifier(0);
      await pair.stopVerifier(1);
      await pair.startVerifier(1);
    });
    expect(lost.text).toBe(text);
  }, 60_000);

  test('constrains only the first tokens, which may then be special tokens', async () => {
    const request: GenerationRequest = {
      ...healed(1),
      sampling: { temperature: 0, topK: 0, topP: 1 },
      drafting: false,
    };
    const steps = await stepsOf(pair.generator, request);
    const [first = 0] = steps[0]?.tokens ?? [];
    // The same tokens follow without a grammar.
    const rest = { ...ask(1), ...request, prompt: [...request.prompt, first], maxTokens: request.maxTokens - 1 };
    const { grammar: _, ...free } = rest;
    const continued = (await stepsOf(pair.generator, free)).flatMap(({ tokens }) => tokens);
    expect([first, ...continued]).toEqual(steps.flatMap(({ tokens }) => tokens));
  });
});
