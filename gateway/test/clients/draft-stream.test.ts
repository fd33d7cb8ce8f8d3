import { create } from '@bufbuild/protobuf';
import { type Branch, type DraftResponse, DraftResponseSchema } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { expect, test } from 'vitest';
import { silent } from '../../../test/test-pair.ts';
import { DraftDeadline } from '../../src/clients/draft-deadline.ts';
import { type DraftStreamParts, GrpcDraftStream } from '../../src/clients/draft-stream.ts';

type Call = NonNullable<ReturnType<DraftStreamParts['open']>>['call'];
type Drafted = Pick<Branch, 'accepted' | 'tokens'>;

const branch = (accepted: number, ...tokens: number[]): Drafted => ({ accepted, tokens });

/** Sends one step with a block of two tokens to a drafter that answers with the branches. */
async function draft(answered: readonly Drafted[], plan: { budget: number; maxBranchLength: number }) {
  const branches = answered.map((each) => ({ ...each, confidences: each.tokens.map(() => 0.5) }));
  const answers: DraftResponse[] = [
    create(DraftResponseSchema, { kind: { case: 'opened', value: {} } }),
    create(DraftResponseSchema, { kind: { case: 'result', value: { step: 0, branches } } }),
  ];
  const call = { receive: async () => answers.shift(), send() {}, cancel() {}, finish() {} };
  const stream = new GrpcDraftStream({
    open: () => ({ call: call as unknown as Call, leave() {} }),
    request: { prompt: [1], sampling: { temperature: 0, topK: 0, topP: 1 }, seed: 1n, maxTokens: 9 },
    traceparent: '',
    deadline: new DraftDeadline({ timeoutMs: 5000, draftLength: 4, logger: silent }),
    vocabulary: 100,
    onFailure() {},
  });
  await stream.opened(new Promise(() => {}));
  const drafted = await stream.step({
    kind: 'draft',
    step: undefined,
    tokens: [5, 6],
    confidences: [0.9, 0.8],
    assumed: 0,
    ...plan,
  });
  stream.close();
  return drafted.branches.map(({ accepted, tokens }) => branch(accepted, ...tokens));
}

test('keeps the branches of a draft within its plan', async () => {
  const branches = [branch(0, 7, 8), branch(1, 9), branch(2, 10, 11, 12)];
  expect(await draft(branches, { budget: 6, maxBranchLength: 3 })).toEqual(branches);
});

test('drops branches and tokens beyond the plan without checking them', async () => {
  const plan = { budget: 5, maxBranchLength: 3 };
  const branches = [branch(0, 7, 8, 9, 10), branch(1, 11, 12, 999_999), branch(2, 13)];
  const surplus = Array.from({ length: 1000 }, () => branch(7, 999_999));
  expect(await draft([...branches, ...surplus], plan)).toEqual([branch(0, 7, 8, 9), branch(1, 11, 12)]);
});

test('rejects a draft whose requested part is invalid', async () => {
  await expect(draft([branch(3, 7)], { budget: 4, maxBranchLength: 4 })).rejects.toThrow('invalid draft');
  await expect(draft([branch(0, 100)], { budget: 4, maxBranchLength: 4 })).rejects.toThrow('invalid draft');
});
