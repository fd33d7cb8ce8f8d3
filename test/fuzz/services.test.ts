import { create } from '@bufbuild/protobuf';
import { FakeDraftEngine, FakeTargetEngine } from '@ptp/engine/testing/fake-engine';
import type { Engine } from '@ptp/engine/types';
import { connect, openChannel } from '@ptp/protocol/client';
import { toPtpError } from '@ptp/protocol/errors';
import { DrafterService, type DraftRequest, DraftRequestSchema } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { VerifierService, type VerifyRequest, VerifyRequestSchema } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { serve } from '@ptp/protocol/server';
import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { Drafter } from '../../drafter/src/drafter.ts';
import { drafterService } from '../../drafter/src/service.ts';
import { verifierService } from '../../verifier/src/service.ts';
import { Verifier } from '../../verifier/src/verifier.ts';
import { silent } from '../test-pair.ts';

// Sends invalid message sequences to the services, which must not trust their callers. `npm run fuzz` sends 50,000
// sequences to each service.

const RUNS = Number(process.env.PTP_FUZZ_RUNS ?? 600);
const SEED = Number(process.env.PTP_FUZZ_SEED ?? 1);
const scheduling = { prefillChunk: 16, batchTokens: 64, sequences: 4, queue: 16 };
const never = new AbortController().signal;

/** Generates token ids. Most are in the vocabulary (256 tokens), so that they get past validation. */
const token = fc.oneof({ weight: 20, arbitrary: fc.nat(255) }, fc.constantFrom(256, 2 ** 31, 2 ** 32 - 1));
const tokens = (most: number) => fc.array(token, { maxLength: most });
const float = fc.oneof(fc.float(), fc.constantFrom(0, 0.5, 1, Number.NaN, Number.POSITIVE_INFINITY, -1));
const sampling = fc.oneof(
  { weight: 3, arbitrary: fc.constant({ temperature: 0.75, topK: 0, topP: 1, minP: 0 }) },
  fc.record({ temperature: float, topK: fc.constantFrom(0, 5, 300, 2 ** 32 - 1), topP: float, minP: float }),
);
const start = fc.record({
  tokens: fc.oneof({ weight: 4, arbitrary: tokens(40) }, fc.constant(new Array(1024).fill(1)), fc.constant([])),
  sampling: fc.option(sampling, { nil: undefined }),
  seed: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  firstPosition: fc.oneof(fc.nat(50), fc.constant(2 ** 32 - 1)),
});
const adjustments = fc.record({
  logitBias: fc.dictionary(fc.constantFrom('0', '5', '255', '256', '4294967295'), float, { maxKeys: 3 }),
  presencePenalty: float,
  frequencyPenalty: float,
  repetitionPenalty: float,
  heldBack: tokens(3),
  heldBackUntil: fc.nat(9),
});
const step = fc.oneof({ weight: 5, arbitrary: fc.nat(5) }, fc.constant(2 ** 32 - 1));
const nothing = fc.constant({});

/** Generates any messages, in most cases after an open message. */
const conversation = <T>(open: fc.Arbitrary<T>, next: fc.Arbitrary<T>) =>
  fc
    .tuple(
      fc.oneof({ weight: 8, arbitrary: open }, next),
      fc.array(fc.oneof({ weight: 8, arbitrary: next }, open, nothing), { maxLength: 6 }),
    )
    .map(([first, rest]) => [first, ...rest]);

const verifyConversation = conversation<object>(
  fc
    .record({
      start,
      adjustments: fc.option(adjustments, { nil: undefined }),
      topLogProbabilities: fc.constantFrom(0, 3, 20, 21),
      tellPrompt: fc.boolean(),
    })
    .map((value) => ({ kind: { case: 'open', value } })),
  fc
    .record({
      step,
      draft: tokens(20),
      allowed: fc.oneof(
        { weight: 3, arbitrary: fc.constant([]) },
        fc.array(fc.uint8Array({ minLength: 31, maxLength: 33 }), { maxLength: 4 }),
      ),
    })
    .map((value) => ({ kind: { case: 'step', value } })),
);
const draftConversation = conversation<object>(
  fc.record({ start: fc.option(start, { nil: undefined }) }).map((value) => ({ kind: { case: 'open', value } })),
  fc
    .record({
      step,
      committed: tokens(6),
      block: tokens(10),
      blockConfidences: fc.array(float, { maxLength: 10 }),
      plan: fc.option(
        fc.record({ budget: fc.constantFrom(0, 1, 16, 5000), maxBranchLength: fc.constantFrom(0, 1, 8, 900) }),
        { nil: undefined },
      ),
    })
    .map((value) => ({ kind: { case: 'step', value } })),
);

async function outcome(answers: AsyncIterable<unknown>): Promise<string> {
  try {
    for await (const _ of answers);
    return 'ok';
  } catch (error) {
    return toPtpError(error).code;
  }
}

async function* each<T>(messages: readonly T[]): AsyncGenerator<T> {
  yield* messages;
}

/** Error codes that indicate a mistake of the caller. */
const FAULTS = ['invalid_argument', 'out_of_range', 'failed_precondition'];

/**
 * Checks that each conversation is answered or rejected as the caller's mistake, and leaves no sequence open.
 *
 * @returns number of each outcome
 */
async function hold(
  conversations: fc.Arbitrary<readonly object[]>,
  engine: Engine,
  answers: (messages: readonly object[]) => AsyncIterable<unknown>,
): Promise<Record<string, number>> {
  const seen: Record<string, number> = {};
  await fc.assert(
    fc.asyncProperty(conversations, async (messages) => {
      const code = await outcome(answers(messages));
      seen[code] = (seen[code] ?? 0) + 1;
      expect(['ok', ...FAULTS]).toContain(code);
      expect(engine.usage()).toEqual({ sequences: 0, cacheBytes: 0 });
    }),
    { numRuns: RUNS, seed: SEED },
  );
  return seen;
}

describe(`${RUNS} conversations`, () => {
  test('with a verifier are answered or rejected, and leave no sequence open', async () => {
    const engine = new FakeTargetEngine();
    const verifier = new Verifier(engine, { draft: 8, ...scheduling });
    const seen = await hold(verifyConversation, engine, (messages) => {
      const requests = messages.map((message) => create(VerifyRequestSchema, message as never) as VerifyRequest);
      return verifier.verify(each(requests), never);
    });
    for (const code of ['ok', ...FAULTS]) expect(seen[code] ?? 0).toBeGreaterThan(RUNS / 200);
  }, 1_200_000);

  test('with a drafter are answered or rejected, and leave no sequence open', async () => {
    const engine = new FakeDraftEngine({ accuracy: 0.5, maxBranchLength: 8 });
    const drafter = new Drafter(engine, { budget: 64, block: 8, ...scheduling });
    const seen = await hold(draftConversation, engine, (messages) => {
      const requests = messages.map((message) => create(DraftRequestSchema, message as never) as DraftRequest);
      return drafter.draft(each(requests), never);
    });
    for (const code of FAULTS) expect(seen[code] ?? 0).toBeGreaterThan(RUNS / 200);
  }, 1_200_000);
});

describe('bytes that are not messages', () => {
  const closes: (() => unknown)[] = [];
  afterAll(async () => {
    for (const close of closes) await close();
  });

  test('end only their own call, with an error', async () => {
    const model = { modelId: 'fake', vocabularySize: 256, contextLength: 1024 };
    const [target, draft] = [new FakeTargetEngine(), new FakeDraftEngine({ accuracy: 0.5 })];
    const server = await serve({
      address: '127.0.0.1:0',
      logger: silent,
      services: [
        verifierService(new Verifier(target, { draft: 8, ...scheduling }), model, true),
        drafterService(new Drafter(draft, { budget: 64, block: 8, ...scheduling }), model),
      ],
    });
    const channel = openChannel(server.address);
    const client = connect(VerifierService, server.address);
    closes.push(
      () => channel.close(),
      () => client.close(),
      () => server.close(0),
    );
    const paths = [
      `/${VerifierService.typeName}/Verify`,
      `/${DrafterService.typeName}/Draft`,
      `/${VerifierService.typeName}/GetTarget`,
    ];
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...paths),
        fc.uint8Array({ minLength: 1, maxLength: 60 }),
        async (path, bytes) => {
          const call = channel.makeBidiStreamRequest(
            path,
            (value: Buffer) => value,
            (value) => value,
          );
          const ended = new Promise<number>((resolve) => {
            call.on('data', () => {});
            call.on('error', () => {});
            call.on('status', ({ code }) => resolve(code));
          });
          call.write(Buffer.from(bytes));
          call.end();
          // The bytes are accepted, or rejected as the caller's mistake, or do not parse.
          expect([0, 3, 9, 11, 13]).toContain(await ended);
        },
      ),
      { numRuns: Math.min(RUNS, 2000), seed: SEED },
    );
    expect((await client.getTarget({})).openSequences).toBe(0);
    expect(target.usage().sequences + draft.usage().sequences).toBe(0);
  }, 600_000);
});
