import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { uniforms } from '@ptp/engine/sampling/uniforms';
import { FakeTargetEngine } from '@ptp/engine/testing/fake-engine';
import { fakeText } from '@ptp/engine/testing/fake-language';
import type { VerifyRequest } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { VerifyRequestSchema } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { describe, expect, test } from 'vitest';
import { Verifier } from '../src/verifier.ts';

type Init = MessageInitShape<typeof VerifyRequestSchema>;

const sampling = { temperature: 0.75, topK: 0, topP: 1 };
const never = new AbortController().signal;

function verifier(engine = new FakeTargetEngine()): Verifier {
  return new Verifier(engine, { draft: 8, prefillChunk: 16, batchTokens: 64, sequences: 2, queue: 8 });
}

function open(tokens: number[], seed = 3n, firstPosition = 0): Init {
  return { kind: { case: 'open', value: { start: { tokens, sampling, seed, firstPosition } } } };
}

function step(draft: number[], number = 0, allowed: Uint8Array[] = []): Init {
  return { kind: { case: 'step', value: { step: number, draft, allowed } } };
}

const all = new Uint8Array(32).fill(255);

async function converse(served: Verifier, messages: Init[]) {
  async function* requests(): AsyncGenerator<VerifyRequest> {
    for (const message of messages) yield create(VerifyRequestSchema, message);
  }
  const answers = [];
  for await (const { kind } of served.verify(requests(), never)) {
    if (kind?.case === 'result') answers.push(kind.value);
  }
  return answers;
}

const prompt = Array.from({ length: 40 }, (_, i) => 1 + (i % 9));
const text = fakeText(prompt, sampling, uniforms(3n, 0, 30));

describe('Verifier', () => {
  test('rejects a sequence beyond its limit until one ends', async () => {
    const served = verifier();
    const { promise: end, resolve } = Promise.withResolvers<void>();
    async function* waiting(): AsyncGenerator<VerifyRequest> {
      yield create(VerifyRequestSchema, open(prompt));
      await end;
    }
    const streams = [1, 2].map(() => served.verify(waiting(), never));
    await Promise.all(streams.map((stream) => stream.next()));
    await expect(converse(served, [open(prompt)])).rejects.toThrow(
      'overloaded: the maximum of 2 open sequences is reached',
    );
    resolve();
    await Promise.all(streams.map((stream) => stream.next()));
    expect(await converse(served, [open(prompt), step([])])).toHaveLength(1);
  });

  test("accepts correct tokens, cuts the draft at the first wrong token, and adds the target's own", async () => {
    const wrong = ((text[4] as number) % 255) + 1;
    const answers = await converse(verifier(), [
      open(prompt),
      step([]),
      step(text.slice(1, 4), 1),
      step([...text.slice(5, 7), wrong, ...text.slice(8, 9)], 2),
    ]);
    expect(answers.map(({ step, accepted, nextToken }) => [step, accepted, nextToken])).toEqual([
      [0, 0, text[0]],
      [1, 3, text[4]],
      [2, wrong === text[7] ? 4 : 2, wrong === text[7] ? text[9] : text[7]],
    ]);
    expect(answers.map(({ logProbabilities }) => logProbabilities?.length)).toEqual([1, 4, 3]);
  });

  test('runs a step sent ahead if its assumed outcome occurs; otherwise skips it and the steps that assume its outcome', async () => {
    const engine = new FakeTargetEngine();
    const after = (accepted: number, nextToken: number) => ({ accepted, nextToken });
    const t = (i: number) => text[i] as number;
    const ahead = (draft: number[], number: number, outcome: ReturnType<typeof after>): Init => ({
      kind: { case: 'step', value: { step: number, draft, after: outcome } },
    });
    const other = (t(9) % 255) + 1;
    const answers = await converse(verifier(engine), [
      open(prompt),
      step(text.slice(0, 2)),
      ahead(text.slice(3, 5), 1, after(2, t(2))),
      ahead(text.slice(6, 9), 2, after(2, t(5))),
      ahead([1, 2], 3, after(3, other)),
      ahead([3], 4, after(2, 7)),
      ahead([3], 5, after(0, 0)),
      step(text.slice(10, 12), 6),
      ahead([], 7, after(1, t(12))),
      ahead([], 8, after(2, t(12))),
    ]);
    expect(answers.map((a) => (a.skipped ? 'skipped' : [a.step, a.accepted, a.nextToken]))).toEqual([
      [0, 2, t(2)],
      [1, 2, t(5)],
      [2, 3, t(9)],
      'skipped',
      'skipped',
      'skipped',
      [6, 2, t(12)],
      'skipped',
      'skipped',
    ]);
    expect(answers.map(({ step }) => step)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
    // Three runs for the prompt, and one for each step that ran.
    expect(engine.runs).toBe(3 + 4);
  });

  test('runs a plain step after any outcome, but not after a skipped step', async () => {
    const plain = (step: number): Init => ({ kind: { case: 'step', value: { step, after: { any: true } } } });
    const t = (i: number) => text[i] as number;
    const wrong = { draft: [1], after: { accepted: 1, nextToken: 1 } };
    const answers = await converse(verifier(), [
      open(prompt),
      step(text.slice(0, 2)),
      plain(1),
      plain(2),
      { kind: { case: 'step', value: { step: 3, ...wrong } } },
      plain(4),
    ]);
    expect(answers.map((a) => (a.skipped ? 'skipped' : [a.step, a.accepted, a.nextToken]))).toEqual([
      [0, 2, t(2)],
      [1, 0, t(3)],
      [2, 0, t(4)],
      'skipped',
      'skipped',
    ]);
  });

  test('skips the first step if it assumes an outcome', async () => {
    const value = { draft: [1], after: { accepted: 0, nextToken: 0 } };
    const answers = await converse(verifier(), [open(prompt), { kind: { case: 'step', value } }]);
    expect(answers).toMatchObject([{ skipped: true }]);
  });

  test('a stream opened with the committed tokens of another stream continues like it', async () => {
    const answers = await converse(verifier(), [
      open([...prompt, ...text.slice(0, 12)], 3n, 12),
      step(text.slice(12, 15)),
    ]);
    expect(answers).toMatchObject([{ accepted: 3, nextToken: text[15] }]);
  });

  test('a prompt of one token needs no prefill', async () => {
    const [first] = fakeText([5], sampling, uniforms(3n, 0, 1));
    expect(await converse(verifier(), [open([5]), step([])])).toMatchObject([{ accepted: 0, nextToken: first }]);
  });

  const rejected: [string, Init[], string][] = [
    ['a step before the open', [step([])], 'the first message must be `open`'],
    [
      'a draft after any outcome',
      [open([1]), step([]), { kind: { case: 'step', value: { step: 1, draft: [1, 2], after: { any: true } } } }],
      '`draft` must be empty with `after.any`, got an array of 2',
    ],
    [
      'masks after any outcome',
      [open([1]), step([]), { kind: { case: 'step', value: { allowed: [new Uint8Array(32)], after: { any: true } } } }],
      '`allowed` must be empty with `after.any`, got an array of 1',
    ],
    ['two opens', [open([1]), open([1])], 'after `open`, each message must be `step`'],
    ['no tokens', [open([])], '`start.tokens` must have 1 to 1023 tokens, got 0'],
    ['a prompt that fills the context', [open(new Array(1024).fill(1))], 'must have 1 to 1023 tokens, got 1024'],
    ['a token outside the vocabulary', [open([1, 256])], '`start.tokens[1]` must be in [0, 255], got 256'],
    ['a draft beyond the limit', [open([1]), step(new Array(9).fill(1))], '`draft` must have at most 8 tokens, got 9'],
    ['a drafted token outside the vocabulary', [open([1]), step([7, 999])], '`draft[1]` must be in [0, 255], got 999'],
    [
      'a draft that does not fit the context',
      [open(new Array(1022).fill(1)), step([1, 1, 1])],
      'must fit the context of 1024 tokens: 1022 are committed, got 3',
    ],
    [
      'too few masks',
      [open([1]), step([7], 0, [all])],
      '`allowed` must be empty or have 2 masks (one per token of `draft`, plus one), got 1',
    ],
    [
      'a mask of another size',
      [open([1]), step([], 0, [new Uint8Array(33)])],
      '`allowed[0]` must have 32 bytes, got 33',
    ],
    [
      'a mask without a token',
      [open([1]), step([7], 0, [all, new Uint8Array(32)])],
      '`allowed[1]` must allow at least one token',
    ],
    [
      'a temperature out of range',
      [
        {
          kind: {
            case: 'open',
            value: { start: { tokens: [1], sampling: { temperature: 3, topK: 0, topP: 1 } } },
          },
        },
      ],
      '`temperature` must be in [0, 2], got 3',
    ],
  ];
  for (const [what, messages, message] of rejected) {
    test(`rejects ${what}, frees the sequence and serves the next`, async () => {
      const engine = new FakeTargetEngine();
      const served = verifier(engine);
      await expect(converse(served, messages)).rejects.toThrow(message);
      expect(engine.usage()).toEqual({ sequences: 0, cacheBytes: 0 });
      expect(await converse(served, [open(prompt), step([])])).toMatchObject([{ nextToken: text[0] }]);
    });
  }
});
