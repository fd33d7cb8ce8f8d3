import { describe, expect, test } from 'vitest';
import { readCachedTokens, readScores } from '../../src/sglang/answer.ts';
import { type ScoreRequest, scoreBody } from '../../src/sglang/score-request.ts';
import { type MetaInfo, metaInfo } from '../../src/testing/fake-sglang-answer.ts';
import { hashScorer } from '../../src/testing/token-scores.ts';

const vocabulary = 64;
const score = hashScorer(vocabulary);
const request: ScoreRequest = { tokens: [3, 1, 4, 1, 5, 9], at: 2, probe: 7, top: 8, named: [11, 12] };

async function answerTo(body: ScoreRequest, alter: (meta: MetaInfo) => void = () => {}) {
  const sent = scoreBody(body);
  const meta = metaInfo(sent, await score(body.tokens, body.at), 2, { vocabulary, score });
  alter(meta);
  // As sent over HTTP: numbers that are not finite become null.
  return JSON.parse(JSON.stringify({ text: '', meta_info: meta }));
}

/** Row 1 belongs to the token after tokens[at]. */
const row = (list: MetaInfo['input_top_logprobs'], k = 1) => list[k] as [number | null, number, null][];

describe('an answer with scores', () => {
  test('has the most probable tokens and the named ones of each position, with exact log-probabilities', async () => {
    const scores = readScores(await answerTo(request), request, vocabulary);
    expect(scores).toHaveLength(4);
    const rows = await score(request.tokens, request.at);
    for (const [k, { top, named }] of scores.entries()) {
      const logits = rows[k] as Float32Array;
      const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
      const best = [...logits.keys()].sort((a, b) => (logits[b] as number) - (logits[a] as number));
      expect([...top.ids]).toEqual(best.slice(0, 8));
      for (const [i, id] of top.ids.entries())
        expect(top.logProbabilities[i]).toBeCloseTo((logits[id] as number) - total, 5);
      const follower = request.tokens[request.at + k + 1] ?? request.probe;
      expect([...named.ids]).toEqual([follower, 11, 12]);
    }
  });

  test('may have every token, and names the last id of the vocabulary 0', async () => {
    const last = { ...request, tokens: [3, 1, 4, 63, 5], top: 64, named: [63] };
    const scores = readScores(await answerTo(last), last, vocabulary);
    expect(scores.map(({ named }) => [...named.ids])).toEqual([[63], [5, 63], [7, 63]]);
  });

  const wrongs: [string, (meta: MetaInfo) => void, string][] = [
    [
      'too few positions',
      (meta) => meta.input_top_logprobs.pop(),
      '`meta_info.input_top_logprobs` must have 5 entries, got 4',
    ],
    [
      'too few echoed tokens',
      (meta) => meta.input_token_logprobs.pop(),
      'input_token_logprobs` must have 5 entries, got 4',
    ],
    ['too few named lists', (meta) => meta.input_token_ids_logprobs.pop(), 'input_token_ids_logprobs` must have 5'],
    [
      'a short list',
      (meta) => row(meta.input_top_logprobs).pop(),
      '`meta_info.input_top_logprobs[1]` must have 8 entries, got 7',
    ],
    ['a long list', (meta) => row(meta.input_top_logprobs).push([-30, 1, null]), 'must have 8 entries, got 9'],
    [
      'no list',
      (meta) => meta.input_top_logprobs.splice(1, 1, null),
      'input_top_logprobs[1]` must be an array, got null',
    ],
    [
      'NaN',
      (meta) => (row(meta.input_top_logprobs)[3] as unknown[]).splice(0, 1, Number.NaN),
      'a finite number <= 0, got null',
    ],
    ['a positive number', (meta) => (row(meta.input_top_logprobs)[0] as unknown[]).splice(0, 1, 0.5), 'got 0.5'],
    ['text', (meta) => (row(meta.input_top_logprobs)[0] as unknown[]).splice(0, 1, '-1'), 'got "-1"'],
    [
      'an id beyond the vocabulary',
      (meta) => (row(meta.input_top_logprobs)[2] as unknown[]).splice(1, 1, 64),
      'token id in [0, 63], got 64',
    ],
    ['a fractional id', (meta) => (row(meta.input_top_logprobs)[2] as unknown[]).splice(1, 1, 1.5), 'got 1.5'],
    [
      'another order',
      (meta) => row(meta.input_top_logprobs).reverse(),
      'input_top_logprobs[1][1]` must be in descending order',
    ],
    [
      'the same token twice',
      (meta) => row(meta.input_top_logprobs).splice(1, 1, row(meta.input_top_logprobs)[0] as [number, number, null]),
      'must have distinct token ids',
    ],
    [
      'probabilities above 1',
      (meta) => {
        for (const [i, entry] of row(meta.input_top_logprobs).entries()) entry[0] = -i / 10;
      },
      'must have probabilities with a sum of at most 1',
    ],
    [
      'another token',
      (meta) => (meta.input_token_logprobs[2] as unknown[]).splice(1, 1, 33),
      '`meta_info.input_token_logprobs[2]` must be of token 5, got 33',
    ],
    [
      'lists of other positions',
      (meta) => meta.input_top_logprobs.splice(1, 4, ...meta.input_top_logprobs.slice(1).reverse()),
      'must agree with input_top_logprobs',
    ],
    [
      'other named tokens',
      (meta) => row(meta.input_token_ids_logprobs).reverse(),
      '`meta_info.input_token_ids_logprobs[1][0]` must be of token 11, got 12',
    ],
    ['another length of the prompt', (meta) => meta.prompt_tokens--, '`meta_info.prompt_tokens` must be 7, got 6'],
    [
      'too many cached tokens',
      (meta) => (meta.cached_tokens = 8),
      '`meta_info.cached_tokens` must be at most 7, got 8',
    ],
    [
      'no count of cached tokens',
      (meta) => Reflect.deleteProperty(meta, 'cached_tokens'),
      'cached_tokens` must be an integer >= 0, got nothing',
    ],
    [
      'no lists',
      (meta) => Reflect.deleteProperty(meta, 'input_top_logprobs'),
      'input_top_logprobs` must be an array, got nothing',
    ],
  ];
  test.each(wrongs)('is wrong with %s', async (_, alter, message) => {
    const answer = await answerTo(request, alter);
    expect(() => readScores(answer, request, vocabulary)).toThrow(message);
    expect(() => readScores(answer, request, vocabulary)).toThrow(expect.objectContaining({ code: 'internal' }));
  });

  test('of the whole vocabulary is wrong with probabilities below 1', async () => {
    const all = { ...request, top: 64 };
    const answer = await answerTo(all, (meta) => {
      for (const entry of row(meta.input_top_logprobs, 4)) entry[0] = (entry[0] as number) - 0.1;
    });
    expect(() => readScores(answer, all, vocabulary)).toThrow('with a sum of 1, got 0.9');
  });

  test('is no answer if the server aborted the request', async () => {
    const answer = await answerTo(request, (meta) => {
      meta.finish_reason = { type: 'abort', message: 'out of memory' };
    });
    expect(() => readScores(answer, request, vocabulary)).toThrow('the server aborted the request: out of memory');
    expect(() => readCachedTokens(answer, 7)).toThrow(expect.objectContaining({ code: 'unavailable' }));
  });

  test.each([[null], ['text'], [[]], [{}], [{ meta_info: 3 }]])('is wrong as %j', (answer) => {
    expect(() => readScores(answer, request, vocabulary)).toThrow('must be an object');
  });
});
