import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { uniforms } from '@ptp/engine/sampling/uniforms';
import { FakeDraftEngine } from '@ptp/engine/testing/fake-engine';
import { fakeText } from '@ptp/engine/testing/fake-language';
import { type DraftRequest, DraftRequestSchema } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { describe, expect, test } from 'vitest';
import { Drafter } from '../src/drafter.ts';

type Init = MessageInitShape<typeof DraftRequestSchema>;

const sampling = { temperature: 0.75, topK: 0, topP: 1 };
const never = new AbortController().signal;
const prompt = [4, 5, 6, 7];
const text = fakeText(prompt, sampling, uniforms(3n, 0, 40));

/** A drafter that is never wrong, so that its drafts show which context and uniforms it received. */
function drafter(engine = new FakeDraftEngine({ accuracy: 1 })): Drafter {
  return new Drafter(engine, { budget: 32, block: 8, prefillChunk: 16, batchTokens: 64, sequences: 2, queue: 8 });
}

function open(tokens = prompt, firstPosition = 0): Init {
  return { kind: { case: 'open', value: { start: { tokens, sampling, seed: 3n, firstPosition } } } };
}

interface StepOptions {
  budget?: number;
  confidences?: number[];
  assumed?: number;
}

function step(committed: number[], block: number[], options: StepOptions = {}): Init {
  const { budget = 8, confidences = block.map(() => 0.5), assumed = 0 } = options;
  const plan = { budget, maxBranchLength: 8 };
  return { kind: { case: 'step', value: { committed, block, blockConfidences: confidences, assumed, plan } } };
}

async function converse(served: Drafter, messages: Init[]) {
  async function* requests(): AsyncGenerator<DraftRequest> {
    for (const message of messages) yield create(DraftRequestSchema, message);
  }
  const answers = [];
  for await (const { kind } of served.draft(requests(), never)) {
    if (kind?.case === 'result') answers.push(kind.value.branches ?? []);
  }
  return answers;
}

describe('Drafter', () => {
  test('without a block there is one branch from the committed tokens', async () => {
    const [branches] = await converse(drafter(), [open(), step([], [], { budget: 5 })]);
    expect(branches).toMatchObject([{ accepted: 0, tokens: text.slice(0, 5) }]);
  });

  test('each branch continues its outcome with the uniforms of its positions', async () => {
    const wrong = ((text[1] as number) % 255) + 1;
    const block = [text[0] as number, wrong];
    const [branches = []] = await converse(drafter(), [open(), step([], block, { budget: 24 })]);
    expect(branches.map(({ accepted }) => accepted)).toEqual([0, 1, 2]);
    for (const { accepted = 0, tokens = [] } of branches) {
      const context = [...prompt, ...block.slice(0, accepted)];
      expect(tokens).toEqual(fakeText(context, sampling, uniforms(3n, accepted, tokens.length)));
    }
  });

  test('a position may have several uniforms', async () => {
    const language = { uniformsPerPosition: 3 };
    const served = drafter(new FakeDraftEngine({ accuracy: 1, ...language }));
    const [branches = []] = await converse(served, [open(), step([], [9], { budget: 6 })]);
    for (const { accepted = 0, tokens = [] } of branches) {
      const context = [...prompt, ...[9].slice(0, accepted)];
      expect(tokens).toEqual(fakeText(context, sampling, uniforms(3n, accepted, tokens.length, 3), language));
    }
    expect(branches.flatMap(({ tokens = [] }) => tokens)).toHaveLength(6);
  });

  test('rows of correctly predicted tokens are kept and others rewritten, also after many committed tokens', async () => {
    const engine = new FakeDraftEngine({ accuracy: 1 });
    const wrong = ((text[2] as number) % 255) + 1;
    const answers = await converse(drafter(engine), [
      open(),
      step([], [...text.slice(0, 2), wrong, 9, 9]),
      step(text.slice(0, 3), text.slice(3, 5), { budget: 24 }),
      step(text.slice(3, 30), []),
      step([], []),
    ]);
    const whole = (branches: (typeof answers)[number] | undefined, m: number) =>
      branches?.find(({ accepted }) => accepted === m)?.tokens;
    expect(whole(answers[1], 2)).toEqual(text.slice(5, 5 + (whole(answers[1], 2)?.length ?? 1)));
    expect(whole(answers[2], 0)).toEqual(text.slice(30, 38));
    expect(whole(answers[3], 0)).toEqual(text.slice(30, 38));
  });

  test('a stream opened in the middle of a text continues there', async () => {
    const [branches] = await converse(drafter(), [
      open([...prompt, ...text.slice(0, 9)], 9),
      step([], [], { budget: 4 }),
    ]);
    expect(branches).toMatchObject([{ accepted: 0, tokens: text.slice(9, 13) }]);
  });

  test('a drafter that checks blocks drafts on from the first wrong token', async () => {
    const engine = new FakeDraftEngine({ accuracy: 1, checks: true });
    const wrong = ((text[2] as number) % 255) + 1;
    const answers = await converse(drafter(engine), [
      open(),
      step([], [...text.slice(0, 2), wrong, 9, 9], { budget: 4 }),
      step(text.slice(0, 3), text.slice(3, 5)),
      step([], text.slice(3, 5)), // The cache already holds the rows of the block and of all tokens before it.
      step(text.slice(3, 30), [], { budget: 2 }),
    ]);
    expect(answers).toMatchObject([
      [{ accepted: 2, tokens: text.slice(2, 6) }],
      [{ accepted: 2, tokens: text.slice(5, 13) }],
      [{ accepted: 2, tokens: text.slice(5, 13) }],
      [{ accepted: 0, tokens: text.slice(30, 32) }],
    ]);
  });

  for (const checks of [true, false]) {
    test(`assumed tokens are not checked and may turn out wrong: a drafter that ${checks ? 'checks blocks' : 'plans branches'}`, async () => {
      const engine = new FakeDraftEngine({ accuracy: 1, checks });
      const other = ((text[4] as number) % 255) + 1;
      const answers = await converse(drafter(engine), [
        open(),
        step([], text.slice(0, 2), { budget: 4, confidences: [1, 1] }),
        // The call assumes the outcome of the first two tokens, while two more are under verification.
        step([], text.slice(0, 5), { budget: 4, assumed: 3, confidences: [0, 0, 0, 1, 1] }),
        // The branch continues an assumed token that the target will not pick.
        step(text.slice(0, 3), [text[3] as number, other], { budget: 4, assumed: 2, confidences: [1, 1] }),
        step([text[3] as number, text[4] as number], [text[5] as number], { budget: 4, confidences: [1] }),
      ]);
      const context = [...prompt, ...text.slice(0, 4), other];
      expect(answers.map((branches) => branches.at(-1))).toMatchObject([
        { accepted: 2, tokens: text.slice(2, 6) },
        { accepted: 5, tokens: text.slice(5, 9) },
        { accepted: 2, tokens: fakeText(context, sampling, uniforms(3n, 5, 4)) },
        { accepted: 1, tokens: text.slice(6, 10) },
      ]);
    });
  }

  const rejected: [string, Init[], string][] = [
    ['a step before the open', [step([], [])], 'the first message must be `open`'],
    [
      'a block beyond the limit',
      [open(), step([], new Array(9).fill(1))],
      '`block` must have at most 8 tokens after its first `assumed` tokens, got 9',
    ],
    [
      'too few confidences',
      [open(), step([], [1, 2], { confidences: [0.5] })],
      '`block_confidences` must be an array of 2 numbers, got 1',
    ],
    [
      'a confidence that is not a probability',
      [open(), step([], [1], { confidences: [Number.NaN] })],
      '`block_confidences[0]` must be in [0, 1], got NaN',
    ],
    [
      'more assumed tokens than the block has',
      [open(), step([], [1], { assumed: 2 })],
      '`assumed` must be at most the length of `block` (1), got 2',
    ],
    ['no budget', [open(), step([], [], { budget: 0 })], '`plan.budget` must be in [1, 32], got 0'],
    ['a token outside the vocabulary', [open(), step([300], [])], '`committed[0]` must be in [0, 255], got 300'],
    [
      'more than the context',
      [open(), step(new Array(1020).fill(1), [])],
      '`block` must end before the context limit of 1024 tokens, got a text of 1024',
    ],
  ];
  for (const [what, messages, message] of rejected) {
    test(`rejects ${what} and frees the sequence`, async () => {
      const engine = new FakeDraftEngine({ accuracy: 1 });
      await expect(converse(drafter(engine), messages)).rejects.toThrow(message);
      expect(engine.usage()).toEqual({ sequences: 0, cacheBytes: 0 });
    });
  }
});
