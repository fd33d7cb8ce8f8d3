import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { GenerationRequest } from '../gateway/src/decode/types.ts';
import { loadTokenizer } from '../gateway/src/text/json-tokenizer.ts';
import { testChoosing } from './choosing-suite.ts';
import { stepsOf, tokensOf } from './generated.ts';
import { python, pythonEnv } from './python.ts';
import { expectNothingLeft, postJson, type Served, serveGateway } from './served.ts';
import { TestPair } from './test-pair.ts';
import { startWorker, torchMissing, torchModels, type Worker } from './torch.ts';

// The whole server with models in ptp-engine, on the CPU. Results there depend on the batch in the last bits, so
// log-probabilities are compared to a few decimals. Texts have to be equal.

const START = 300_000;
const LIMITS = { length: 5, budget: 16, mode: 'overlap', ahead: 4 } as const;

describe.skipIf(torchMissing)('Hugging Face folders on PyTorch', { timeout: 60_000 }, () => {
  const model = (name: string) => join(torchModels(), name);
  let [target, drafter, qwen3]: Worker[] = [];
  beforeAll(async () => {
    const options = ['--context-length', '256', '--device', 'cpu', '--threads', '1'];
    [target, drafter, qwen3] = await Promise.all([
      startWorker('target', model('tiny'), ...options),
      startWorker('drafter', model('drafter.pt'), '--target', model('tiny'), ...options),
      startWorker('target', model('qwen3'), ...options),
    ]);
  }, 2 * START);
  afterAll(() => Promise.all([target, drafter, qwen3].map((worker) => worker?.stop())), START);

  const engines = () => ({ target: target?.address ?? '', drafter: drafter?.address ?? '' });

  describe('with a PTP drafter', () => {
    testChoosing({
      open: () => TestPair.remote(model('tiny'), engines(), { limits: LIMITS }),
      tokenizer: () => loadTokenizer(model('tiny')),
      prompts: ['def read(', '    return torch.'],
      common: [' ', 'e'],
      bytewise: true,
      seeds: 3,
      endBias: 10,
      logDecimals: 4,
    });
  });

  describe('write the greedy text of transformers and of ONNX Runtime', () => {
    const texts: Record<string, { prompt: number[]; tokens: number[] }> = torchMissing
      ? {}
      : JSON.parse(readFileSync(model('greedy.json'), 'utf8'));
    const qwen3Alone = () => ({ target: qwen3?.address ?? '', drafter: qwen3?.address ?? '' });
    const cases: [string, () => Promise<TestPair>, string][] = [
      ['tiny', () => TestPair.remote(model('tiny'), engines(), { limits: LIMITS }), 'a PTP drafter'],
      [
        'qwen3',
        () => TestPair.remote(model('qwen3'), qwen3Alone(), { limits: LIMITS, draftModel: model('qwen3') }),
        'a draft model',
      ],
      ['tiny', () => TestPair.onnx(join(import.meta.dirname, 'models', 'tiny'), { limits: LIMITS }), 'ONNX Runtime'],
    ];
    test.each(cases)('%s', async (name, open, how) => {
      const { prompt = [], tokens = [] } = texts[name] ?? {};
      const pair = await open();
      const request: GenerationRequest = {
        prompt,
        sampling: { temperature: 0, topK: 0, topP: 1 },
        seed: 1n,
        maxTokens: tokens.length,
        ignoreEndOfText: true,
      };
      const drafted = await stepsOf(pair.generator, request);
      const plain = await stepsOf(pair.generator, { ...request, drafting: false });
      await pair.stop();
      expect(tokens).toHaveLength(200);
      expect(tokensOf(plain), how).toEqual(tokens);
      expect(tokensOf(drafted), how).toEqual(tokens);
      const accepted = drafted.reduce((sum, { stats }) => sum + stats.accepted, 0);
      expect(accepted).toBeGreaterThan(50);
    });
  });

  test('draw the same texts as ONNX Runtime with the same seeds', async () => {
    const textsOf = async (pair: TestPair) => {
      const texts: number[][] = [];
      for (let seed = 0n; seed < 6n; seed++) {
        const sampling = { temperature: 0.9, topK: seed % 2n === 0n ? 0 : 20, topP: seed % 3n === 0n ? 1 : 0.9 };
        const request = { prompt: [68, 69, 70, 1], sampling, seed, maxTokens: 40, ignoreEndOfText: true };
        texts.push(tokensOf(await stepsOf(pair.generator, request)));
      }
      await pair.stop();
      return texts;
    };
    const onnx = await textsOf(await TestPair.onnx(join(import.meta.dirname, 'models', 'tiny'), { limits: LIMITS }));
    expect(await textsOf(await TestPair.remote(model('tiny'), engines(), { limits: LIMITS }))).toEqual(onnx);
  });

  describe('over HTTP', () => {
    let server: Served;
    beforeAll(async () => {
      server = await serveGateway(model('tiny'), { maxStreams: 64, engines: engines() });
    }, START);
    afterAll(() => server?.close());

    const post = (path: string, body: object) => postJson(server.url, path, body);

    test('the model describes its engine', async () => {
      const { data } = await (await fetch(new URL('v1/models', server.url))).json();
      const ptp = { engine: 'torch', quantization: 'float32', candidate_limit: null };
      expect(data).toMatchObject([{ id: 'tiny', max_model_len: 256, ptp }]);
    });

    test('the health check of the image tells a worker from none', () => {
      const check = (address: string) =>
        spawnSync(python, ['-m', 'ptp_engine.health_check', address], { env: pythonEnv }).status;
      expect(check(engines().target)).toBe(0);
      expect(check('unix:/nowhere/engine.sock')).toBe(1);
    });

    test('chat uses the template in the folder', async () => {
      const { tokens } = await post('tokenize', { messages: [{ role: 'user', content: 'Hi' }] });
      const { prompt } = await post('detokenize', { tokens });
      expect(prompt).toContain('Hi');
      const answer = await post('v1/chat/completions', {
        messages: [{ role: 'user', content: 'Hi' }],
        max_tokens: 10,
        ignore_eos: true,
      });
      expect(answer.usage).toMatchObject({ prompt_tokens: tokens.length, completion_tokens: 10 });
    });

    test('clients that disconnect leave no sequence behind', () => expectNothingLeft(server, 'def ', 10));
  });
});
