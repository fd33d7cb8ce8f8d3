import { adjustParams } from '@ptp/protocol/token-adjustments';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { GenerationRequest } from '../gateway/src/decode/types.ts';
import { GrammarCache } from '../gateway/src/grammar/cache.ts';
import type { OutputConstraint } from '../gateway/src/grammar/types.ts';
import { generateChoices, newUsage } from '../gateway/src/openai/choices.ts';
import { constraintOf } from '../gateway/src/openai/output-format.ts';
import { type ToolUse, withToolConstraint } from '../gateway/src/openai/tools.ts';
import type { Tokenizer } from '../gateway/src/text/tokenizer.ts';
import { stepsOf, tokensOf } from './generated.ts';
import type { TestPair } from './test-pair.ts';

/** A model under test. */
export interface ChoosingCase {
  readonly open: () => Promise<TestPair>;
  readonly tokenizer: () => Promise<Tokenizer>;
  /** Two prompts of several tokens. */
  readonly prompts: readonly [string, string];
  /** Two tokens that the model's texts often contain. */
  readonly common: readonly [string, string];
  /** True if tokens are bytes. A grammar then often leaves a single token. */
  readonly bytewise: boolean;
  /** Number of texts per feature. */
  readonly seeds: number;
  /** Bias with which some text contains the end token. Default: 6. With fewer seeds, it must be larger. */
  readonly endBias?: number;
  /** Number of decimals to which log-probabilities are the same with and without drafts. Default: exactly the same. */
  readonly logDecimals?: number;
}

const TOKENS = 14;

interface Answer {
  readonly tokens: number[];
  readonly logProbabilities: number[];
  readonly tops: unknown[];
  readonly finish: string | undefined;
  readonly drafted: number;
}

/** Returns a matcher for a value whose log-probabilities may differ after `decimals` decimals. */
function nearly(value: unknown, decimals: number | undefined, isLog = false): unknown {
  if (decimals === undefined) return value;
  if (typeof value === 'number') return isLog ? expect.closeTo(value, decimals) : value;
  if (Array.isArray(value)) return value.map((each) => nearly(each, decimals, isLog));
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([key, each]) => [key, nearly(each, decimals, key === 'logProbabilities')]);
  return Object.fromEntries(entries);
}

/** Tests that the options of a request take effect, and that the results do not depend on drafts. */
export function testChoosing(under: ChoosingCase): void {
  const { seeds, logDecimals, endBias = 6 } = under;
  /** Number of texts of which more than half have to end as expected. */
  const enough = Math.max(seeds, 8);
  let pair: TestPair;
  let tokenizer: Tokenizer;
  let [space, e]: [number, number] = [0, 0];
  beforeAll(async () => {
    pair = await under.open();
    tokenizer = await under.tokenizer();
    [space, e] = under.common.flatMap((text) => tokenizer.encode(text)) as [number, number];
  }, 300_000);
  afterAll(() => pair?.stop());

  const adjust = (given: Parameters<typeof adjustParams>[0]) => {
    const adjustments = adjustParams(given, pair.generator.model.vocabulary);
    if (!adjustments) throw new Error('no adjustments');
    return { adjustments };
  };
  const sampling = { temperature: 0.9, topK: 0, topP: 1 };
  const inForm = (form: OutputConstraint | undefined) => {
    if (!form) throw new Error('no constraint');
    return { grammar: new GrammarCache(tokenizer, pair.generator.model).start(form) };
  };
  /** Removes the last two tokens of a prompt. The generated tokens begin with their bytes. */
  const healed = (form: OutputConstraint | undefined) => {
    const ids = tokenizer.encode(under.prompts[1]);
    const end = Buffer.concat(ids.slice(-2).map((id) => tokenizer.bytes(id)));
    const grammars = new GrammarCache(tokenizer, pair.generator.model);
    return { prompt: ids.slice(0, -2), grammar: grammars.startAfter(end, form) };
  };
  const schema = {
    type: 'object',
    properties: { name: { type: 'string', maxLength: 6 }, n: { type: 'integer', minimum: 0, maximum: 999 } },
    required: ['name', 'n'],
  };
  const schemaForm = () => constraintOf({ response_format: { type: 'json_schema', json_schema: { schema } } });
  const tools: ToolUse = { tools: [{ name: 'read', parameters: schema }], choice: 'auto', parallel: true };

  /** Request fields by feature. They are computed once the pair has started. */
  const features: Record<string, () => Partial<GenerationRequest>> = {
    logit_bias: () => adjust({ logitBias: new Map([[space, -100], [e, 3]]) }), // biome-ignore format: pairs
    presence_penalty: () => adjust({ presencePenalty: 1.5 }),
    frequency_penalty: () => adjust({ frequencyPenalty: 1 }),
    repetition_penalty: () => adjust({ repetitionPenalty: 1.8 }),
    'all of them, greedy': () => ({
      ...adjust({ logitBias: new Map([[e, 2]]), presencePenalty: 0.3, frequencyPenalty: 0.4, repetitionPenalty: 1.2 }),
      sampling: { temperature: 0, topK: 0, topP: 1 },
    }),
    min_p: () => ({ sampling: { ...sampling, minP: 0.2 } }),
    'min_p with top_k and top_p': () => ({ sampling: { temperature: 1.3, topK: 20, topP: 0.9, minP: 0.05 } }),
    stop_token_ids: () => ({ stopTokens: [e] }),
    'min_tokens with stop_token_ids': () => ({
      stopTokens: [e, space],
      ...adjust({ heldBack: [e, space], heldBackUntil: 6 }),
    }),
    ignore_eos: () => ({
      ignoreEndOfText: true,
      ...adjust({ logitBias: new Map([[pair.generator.model.endOfText, endBias]]) }),
    }),
    logprobs: () => ({ topCount: 5 }),
    json_schema: () => inForm(schemaForm()),
    'json_schema, greedy, with penalties': () => ({
      ...inForm(schemaForm()),
      ...adjust({ frequencyPenalty: 0.5, repetitionPenalty: 1.1 }),
      sampling: { temperature: 0, topK: 0, topP: 1 },
    }),
    'json_schema with top_k and top_p': () => ({
      ...inForm(schemaForm()),
      sampling: { temperature: 1.2, topK: 3, topP: 0.8 },
    }),
    json_object: () => inForm(constraintOf({ response_format: { type: 'json_object' } })),
    regex: () => inForm(constraintOf({ structured_outputs: { regex: '[a-f]{2,9}(, [a-f]{2,9})*' } })),
    'tools, required': () =>
      inForm(withToolConstraint(undefined, { ...tools, choice: 'required' }, () => 'parameters')),
    token_healing: () => healed(undefined),
    'token_healing with json_schema': () => healed(schemaForm()),
    'tools, auto': () => ({
      ...inForm(withToolConstraint(undefined, tools, () => 'parameters')),
      ...adjust({ logitBias: new Map(tokenizer.encode('<tool_call>').map((id) => [id, 8])) }),
    }),
  };

  const textOf = ({ drafted: _, ...rest }: Answer) => rest;

  async function answer(request: GenerationRequest): Promise<Answer> {
    const steps = await stepsOf(pair.generator, request);
    return {
      tokens: tokensOf(steps),
      logProbabilities: steps.flatMap((step) => step.logProbabilities),
      tops: steps.flatMap((step) => step.tops ?? []),
      finish: steps.at(-1)?.finish,
      drafted: steps.reduce((sum, { stats }) => sum + stats.drafted, 0),
    };
  }

  const requests = (feature: Partial<GenerationRequest>, count = seeds): GenerationRequest[] =>
    Array.from({ length: count }, (_, seed) => ({
      prompt: tokenizer.encode(under.prompts[seed % 2] as string),
      sampling,
      maxTokens: TOKENS,
      seed: BigInt(seed),
      ...feature,
    }));

  describe('texts are the same with and without the drafter', () => {
    test.each(Object.entries(features))('%s', async (_, feature) => {
      const featured = requests(feature());
      const plain: Answer[] = [];
      for (const request of featured) plain.push(await answer({ ...request, drafting: false }));
      const drafted = await Promise.all(featured.map(answer));
      expect(drafted.map(textOf)).toEqual(nearly(plain.map(textOf), logDecimals));
      const proposed = drafted.reduce((sum, { drafted }) => sum + drafted, 0);
      if (under.bytewise || !feature().grammar) expect(proposed).toBeGreaterThan(seeds);
      // The feature changes the text.
      if (!feature().topCount) {
        const usual = await Promise.all(requests({}).map(answer));
        expect(usual.map(({ tokens }) => tokens)).not.toEqual(plain.map(({ tokens }) => tokens));
      }
    });
  });

  test('a text ends before the same stop string, across tokens, with and without the drafter', async () => {
    const stop = ['re', 'se', ' i', '\n'];
    const stopped = async (request: GenerationRequest) => {
      const outcome = { usage: newUsage(request.prompt.length), warnings: new Set<string>() };
      const choice = { ...request, maxTokens: 40, stop, first: true };
      let [text, finish] = ['', ''];
      for await (const delta of generateChoices(
        pair.generator,
        tokenizer,
        [choice],
        outcome,
        new AbortController().signal,
      )) {
        text += delta.text;
        finish = delta.finish ?? finish;
      }
      return { text, finish, tokens: outcome.usage.completion_tokens };
    };
    const drafted = await Promise.all(requests({}, enough).map(stopped));
    const plain = [];
    for (const request of requests({}, enough)) plain.push(await stopped({ ...request, drafting: false }));
    expect(drafted).toEqual(plain);
    expect(plain.filter(({ finish }) => finish === 'stop').length).toBeGreaterThan(enough / 2);
    for (const { text } of plain) for (const end of stop) expect(text).not.toContain(end);
  });

  test('constrained answers follow their schema', async () => {
    const [request] = requests({ ...inForm(schemaForm()), maxTokens: 100 });
    const seeded = Array.from({ length: enough }, (_, i) => ({ ...(request as GenerationRequest), seed: BigInt(i) }));
    const answers = await Promise.all(seeded.map(answer));
    const whole = answers.filter(({ finish }) => finish === 'stop');
    expect(whole.length).toBeGreaterThan(enough / 2);
    for (const { tokens } of whole) {
      const value = JSON.parse(Buffer.concat(tokens.map((id) => tokenizer.bytes(id))).toString());
      expect(Object.keys(value)).toEqual(['name', 'n']);
      expect([...value.name].length).toBeLessThanOrEqual(6);
      expect(value.n).toBeGreaterThanOrEqual(0);
      expect(value.n).toBeLessThanOrEqual(999);
    }
  });

  test('log-probabilities of a prompt are the same as when its tokens were generated', async () => {
    const [request] = requests({ maxTokens: 40, topCount: 3 }) as [GenerationRequest];
    const generated = await answer(request);
    const prompt = [...request.prompt, ...generated.tokens];
    const scoring = { ...request, prompt, promptLogprobs: true, maxTokens: 1 };
    const [scored] = await stepsOf(pair.generator, scoring);
    expect(scored?.prompt?.logProbabilities).toHaveLength(prompt.length - 1);
    const from = request.prompt.length - 1;
    expect(scored?.prompt?.logProbabilities.slice(from)).toEqual(nearly(generated.logProbabilities, logDecimals, true));
    expect(scored?.prompt?.tops.slice(from)).toEqual(nearly(generated.tops, logDecimals));
  });

  test('tokens that a grammar forces are proposed', async () => {
    const [request] = requests({
      ...inForm(schemaForm()),
      maxTokens: 40,
      draftLimits: { mode: 'plain', lookup: false },
    });
    const steps = await stepsOf(pair.generator, request as GenerationRequest);
    const fromGrammar = steps.filter(({ stats }) => stats.source === 'grammar');
    expect(fromGrammar.reduce((sum, { stats }) => sum + stats.accepted, 0)).toBeGreaterThan(under.bytewise ? 5 : 0);
  });

  test('a prediction gives the same text in fewer steps', async () => {
    const [request] = requests({ maxTokens: 60, sampling: { temperature: 0, topK: 0, topP: 1 } });
    const limits = { lookup: false, mode: 'plain' } as const;
    const steps = (more: Partial<GenerationRequest>) =>
      stepsOf(pair.generator, { ...(request as GenerationRequest), draftLimits: limits, ...more });
    const plain = await steps({});
    const text = tokensOf(plain);
    const predicted = await steps({ prediction: text });
    const edited = await steps({ prediction: [...text.slice(0, 20), e, e, e, ...text.slice(24)] });
    expect(tokensOf(predicted)).toEqual(text);
    expect(tokensOf(edited)).toEqual(text);
    expect(predicted.length).toBeLessThan(plain.length / 3);
    expect(edited.length).toBeGreaterThan(predicted.length);
    expect(edited.length).toBeLessThan(plain.length / 2);
    expect(predicted.filter(({ stats }) => stats.source === 'prediction').length).toBeGreaterThan(5);
  });

  describe('features take effect', () => {
    const all = async (feature: Partial<GenerationRequest>) => Promise.all(requests(feature).map(answer));

    test('a forbidden token is never generated', async () => {
      const answers = await all(adjust({ logitBias: new Map([[space, -100]]) }));
      expect(answers.flatMap(({ tokens }) => tokens)).not.toContain(space);
    });

    test('a stop token ends the text, and is not part of it', async () => {
      const answers = await all({ stopTokens: [e] });
      expect(answers.flatMap(({ tokens }) => tokens)).not.toContain(e);
      expect(answers.some(({ finish, tokens }) => finish === 'stop' && tokens.length < TOKENS)).toBe(true);
    });

    test('a stop token is held back for min_tokens', async () => {
      const answers = await all(features['min_tokens with stop_token_ids']?.() ?? {});
      for (const { tokens } of answers) expect(tokens.length).toBeGreaterThanOrEqual(6);
    });

    test('the end of text can be ignored', async () => {
      const { endOfText } = pair.generator.model;
      const answers = await all(features.ignore_eos?.() ?? {});
      expect(answers.every(({ finish, tokens }) => finish === 'length' && tokens.length === TOKENS)).toBe(true);
      expect(answers.flatMap(({ tokens }) => tokens)).toContain(endOfText);
    });

    test('alternatives are sorted by probability; greedy text takes the first', async () => {
      for (const { tokens, tops, logProbabilities } of await all({
        topCount: 4,
        sampling: { ...sampling, temperature: 0 },
      })) {
        const alternatives = tops as { ids: number[]; logProbabilities: number[] }[];
        expect(alternatives.map(({ ids }) => ids[0])).toEqual(tokens);
        expect(alternatives.map((top) => top.logProbabilities[0])).toEqual(logProbabilities);
        for (const { ids, logProbabilities: logs } of alternatives) {
          expect(ids).toHaveLength(4);
          expect(logs).toEqual([...logs].sort((a, b) => b - a));
        }
      }
    });

    test('log-probabilities come from the model, without adjustments', async () => {
      const [usual] = await all({ topCount: 20, maxTokens: 1 });
      const [biased] = await all({ topCount: 20, maxTokens: 1, ...adjust({ logitBias: new Map([[e, 100]]) }) });
      expect(biased?.tokens).toEqual([e]);
      const logs = (tops: unknown) => (tops as { logProbabilities: number[] }[])[0]?.logProbabilities;
      expect(logs(biased?.tops)).toEqual(nearly(logs(usual?.tops), logDecimals, true));
    });
  });
}
