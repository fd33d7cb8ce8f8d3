import { describe, expect, test, vi } from 'vitest';
import type { PipelineParts } from '../../src/decode/pipeline-types.ts';
import type { Proposer } from '../../src/decode/proposers/proposers.ts';
import type { GrammarState } from '../../src/decode/types.ts';
import { draft, Harness, LENGTH, overlap, plain, type verdict } from '../testing/pipeline-harness.ts';

describe('one step', () => {
  test('waits for the first block, then verifies it, and drafts once the verify call has left', () => {
    const { pipeline } = new Harness();
    expect(pipeline.firstDraft()).toMatchObject({ kind: 'redraft', step: undefined, budget: LENGTH, tokens: [] });
    expect(pipeline.next(0, true)).toEqual([]);
    const run = new Harness();
    expect(run.begin(1, 2, 3)).toEqual(['verify #0 [1,2,3]']);
    expect(run.next()).toEqual([]);
    expect(run.left(0)).toEqual(['draft #0 [|1,2,3]']);
  });

  test('begins without a block if the first draft is missing', () => {
    const run = new Harness();
    expect(run.begin()).toEqual(['verify #0 []']);
  });

  test.each([
    ['all of the block', 3, 9, [1, 2, 3, 9]],
    ['a part of it', 1, 9, [1, 9]],
    ['nothing of it', 0, 9, [9]],
  ] as const)('commits %s and the target’s own token', (_, accepted, nextToken, tokens) => {
    const run = new Harness({ limits: { ahead: 0 } });
    run.begin(1, 2, 3);
    run.left(0);
    expect(run.verified(0, accepted, nextToken)).toEqual([]);
    expect(run.drafted(0)).toContain(`commit ${tokens}`);
    expect(run.finished[0]).toMatchObject({ tokens, proposed: [1, 2, 3], stats: { accepted, drafted: 3 } });
    expect(run.finished[0]?.logProbabilities).toHaveLength(tokens.length);
  });

  test('waits for both answers, whichever comes first, and lasts from its start to the later one', () => {
    for (const draftFirst of [true, false]) {
      const run = new Harness({ limits: { ahead: 0 } });
      run.now = 10;
      run.begin(1);
      run.left(0);
      run.now = 12;
      if (draftFirst) run.drafted(0, [1, 9, 5]);
      else run.verified(0, 1, 9);
      expect(run.finished).toEqual([]);
      run.now = 15;
      if (draftFirst) run.verified(0, 1, 9);
      else run.drafted(0, [1, 9, 5]);
      expect(run.finished[0]?.stats).toMatchObject({ stepMicros: 5000, aheadMicros: 0, draftMicros: 100 });
    }
  });

  test('does not wait for a draft that was not requested before the verdict arrived', () => {
    const run = new Harness();
    run.begin(1);
    expect(run.verified(0, 1, 9)[0]).toBe('commit 1,9');
    expect(run.left(0)).toEqual([]);
  });

  test('reports its outcome to the policy, unless the client disabled drafting', () => {
    for (const drafting of [true, false]) {
      const run = new Harness({ request: { maxTokens: 9, drafting } });
      run.begin(1, 2);
      run.verified(0, 1, 9);
      const outcome = { mode: 'overlap', accepted: 1, budget: 8, redraftLength: 0, redraftMicros: 0 };
      expect(run.policy.observed).toEqual(drafting ? [expect.objectContaining(outcome)] : []);
    }
  });
});

describe('the next block', () => {
  const after = (branches: Parameters<typeof draft>, ...outcome: Parameters<typeof verdict>) => {
    const run = new Harness({ limits: { ahead: 0 } });
    run.begin(1, 2);
    run.left(0);
    run.drafted(0, ...branches);
    return { run, commands: run.verified(0, ...outcome).slice(1) };
  };

  test('is the branch for the actual outcome, without the token that the target committed', () => {
    const { run, commands } = after(
      [
        [2, 9, 5, 6],
        [1, 8, 7],
      ],
      2,
      9,
    );
    expect(commands).toEqual(['verify #1 [5,6]']);
    expect(run.finished[0]?.branch).toEqual({ accepted: 2, length: 2 });
    expect(
      after(
        [
          [2, 9, 5, 6],
          [1, 8, 7],
        ],
        1,
        8,
      ).commands,
    ).toEqual(['verify #1 [7]']);
  });

  test.each([
    ['no branch is for as many accepted tokens', [[2, 9, 5]], 1, 9],
    ['its branch begins with another token', [[2, 9, 5]], 2, 8],
    ['its branch has nothing after that token', [[2, 9]], 2, 9],
  ] as const)('is drafted anew where %s', (_, [branch], accepted, nextToken) => {
    const { run, commands } = after([[...branch]], accepted, nextToken);
    expect(commands).toEqual(['redraft #1 3']);
    expect(run.finished[0]?.branch).toBeUndefined();
    run.now = 7;
    expect(run.redraft(4, 5)).toEqual(['verify #1 [4,5]']);
    run.verified(1, 0, 6);
    expect(run.finished[1]?.stats).toMatchObject({ step: 1, redraftMicros: 100, stepMicros: 7000 });
    expect(run.policy.observed[1]).toMatchObject({ redraftLength: 3 });
  });

  test('is empty in plain mode, and nothing is drafted', () => {
    const run = new Harness();
    run.drafterAvailable = false;
    expect(run.begin()).toEqual(['verify #0 []']);
    expect(run.left(0)).toEqual([]);
    expect(run.verified(0, 0, 4)).toEqual(['commit 4', 'verify #1 []']);
    expect(run.finished[0]?.stats).toMatchObject({ mode: 'plain', source: 'none', budget: 0 });
  });

  test('is a proposal if that is better, based on all committed tokens', () => {
    const pushed: number[] = [];
    const proposer: Proposer = {
      push: (tokens) => void pushed.push(...tokens),
      propose: (length) => {
        const tokens = pushed.includes(9) ? [70, 71, 72].slice(0, length) : [];
        return { source: 'prompt lookup', tokens, confidences: tokens.map(() => 0.9) };
      },
    };
    const run = new Harness({ limits: { ahead: 0 }, proposers: [proposer] });
    run.begin(1, 2);
    run.left(0);
    run.drafted(0, [2, 9, 5]);
    expect(run.verified(0, 2, 9)).toEqual(['commit 1,2,9', 'verify #1 [70,71,72]']);
    expect(pushed).toEqual([1, 2, 9]);
    run.verified(1, 0, 3);
    expect(run.finished.map(({ stats }) => stats.source)).toEqual(['drafter', 'prompt lookup']);
  });
});

describe('a step sent ahead', () => {
  /** Puts two steps in flight. Step 1 assumes that step 0 commits the tokens 1, 2 and 9. */
  const ahead = (parts?: Partial<PipelineParts>) => {
    const run = new Harness(parts);
    run.begin(1, 2);
    run.left(0);
    run.now = 1;
    return { run, commands: run.drafted(0, [2, 9, 5, 6]) };
  };

  test('is sent when the draft expects a single outcome, and drafts after the assumed tokens', () => {
    const { run, commands } = ahead();
    expect(commands).toEqual(['verify #1 [5,6] after 2:9']);
    expect(run.left(1)).toEqual(['draft #1 [1,2,9|5,6]']);
  });

  test('continues from the previous one: expected tokens add up over several steps', () => {
    const { run } = ahead();
    run.left(1);
    expect(run.drafted(1, [2, 7, 8, 4])).toEqual(['verify #2 [8,4] after 2:7']);
    expect(run.left(2)).toEqual(['draft #2 [1,2,9,5,6,7|8,4]']);
    // A committed token is no longer assumed.
    expect(run.verified(0, 2, 9)).toEqual(['commit 1,2,9']);
    expect(run.drafted(2, [1, 3, 10])).toEqual(['verify #3 [10] after 1:3']);
    expect(run.left(3)).toEqual(['draft #3 [5,6,7,8,3|10]']);
  });

  test('stays in flight when its expected outcome occurs, and is timed from the end of the previous step', () => {
    const { run } = ahead();
    run.left(1);
    run.now = 10;
    expect(run.verified(0, 2, 9)).toEqual(['commit 1,2,9']);
    run.drafted(1, [0, 7, 8]);
    run.now = 14;
    expect(run.verified(1, 2, 3)[0]).toBe('commit 5,6,3');
    expect(run.policy.sent).toEqual([true, false]);
    expect(run.finished.map(({ stats }) => [stats.step, stats.stepMicros, stats.aheadMicros])).toEqual([
      [0, 10_000, 0],
      [1, 4000, 9000],
    ]);
  });

  test('is dropped with all later ones if the assumed outcome does not occur; their late answers are ignored', () => {
    const { run } = ahead();
    run.left(1);
    run.drafted(1, [2, 7, 8, 4]);
    run.left(2);
    expect(run.verified(0, 1, 9)).toEqual(['commit 1,9', 'drop #1', 'drop #2', 'redraft #3 3']);
    expect(run.policy.sent).toEqual([false]);
    expect([...run.drafted(2, [0, 1, 2]), ...run.verified(1), ...run.verified(2)]).toEqual([]);
    expect(run.redraft(4)).toEqual(['verify #3 [4]']);
    expect(run.steps.map(({ index }) => index)).toEqual([0, 1, 2, 1]);
  });

  test('leaves the decision made for it to the next step when it is dropped', () => {
    const run = new Harness();
    run.policy.decisions = [overlap, { mode: 'overlap', reason: 'trial' }];
    run.begin(1, 2);
    run.left(0);
    run.drafted(0, [2, 9, 5, 6]);
    run.verified(0, 0, 3);
    run.redraft(4);
    run.verified(2, 0, 3);
    expect(run.finished.map(({ stats }) => stats.reason)).toEqual(['setting', 'trial']);
  });

  test('is resent after its verifier was lost, and later ones are dropped', () => {
    const { run } = ahead();
    run.left(1);
    run.drafted(1, [2, 7, 8, 4]);
    expect([...run.verified(1), ...run.verified(2)]).toEqual([]);
    // The state of the later step is unknown until another verifier has answered the previous step.
    expect(run.verified(0, 2, 9)).toEqual(['commit 1,2,9', 'drop #2', 'verify #1 [5,6]', 'verify #3 [8,4] after 2:7']);
    expect(run.verified(1, 2, 7)).toEqual(['commit 5,6,7']);
    expect(run.finished.map(({ tokens }) => tokens)).toEqual([
      [1, 2, 9],
      [5, 6, 7],
    ]);
  });

  test.each<[string, (run: Harness) => void, Parameters<typeof draft>]>([
    [
      'several outcomes are likely',
      () => {},
      [
        [2, 9, 5, 6],
        [1, 8, 7],
      ],
    ],
    ['nothing would follow the target’s token', () => {}, [[2, 9]]],
    ['drafts expect the wrong outcome', (run) => Object.assign(run.policy, { worthAhead: false }), [[2, 9, 5]]],
    ['it would not draft', (run) => run.policy.decisions.push(plain), [[2, 9, 5]]],
    ['the text would end before', () => {}, [[2, 0, 5]]],
  ])('is not sent where %s', (_, prepare, branches) => {
    const run = new Harness();
    run.begin(1, 2);
    run.left(0);
    prepare(run);
    expect(run.drafted(0, ...branches)).toEqual([]);
  });

  test('is not sent beyond the limit, but as soon as another one finishes', () => {
    const { run } = ahead({ limits: { ahead: 1 } });
    run.left(1);
    expect(run.drafted(1, [2, 7, 8, 4])).toEqual([]);
    expect(run.verified(0, 2, 9)).toEqual(['commit 1,2,9', 'verify #2 [8,4] after 2:7']);
  });

  test('is not sent if the assumed tokens complete the text', () => {
    const { run, commands } = ahead({ request: { maxTokens: 3 } });
    expect(commands).toEqual([]);
    run.verified(0, 2, 9);
    expect(run.finished[0]).toMatchObject({ tokens: [1, 2, 9], finish: 'length' });
  });
});

describe('the end', () => {
  test.each([
    ['the model’s end of text', {}, 0, 'stop', [1]],
    ['a stop token', { stopTokens: [44] }, 44, 'stop', [1]],
    ['an end of text that is a token like any other', { ignoreEndOfText: true }, 0, undefined, [1, 0]],
  ] as const)('comes with %s', (_, request, token, finish, tokens) => {
    const run = new Harness({ request: { maxTokens: 50, ...request } });
    run.begin(1, 2);
    run.verified(0, 1, token);
    expect(run.finished[0]).toMatchObject({ tokens });
    expect(run.finished[0]?.finish).toBe(finish);
  });

  test('cuts a step at a stop token inside its block', () => {
    const run = new Harness();
    run.begin(1, 0, 3);
    run.verified(0, 3, 9);
    expect(run.finished[0]).toMatchObject({ tokens: [1], logProbabilities: [-1], finish: 'stop' });
  });

  test('comes with maxTokens; blocks leave room for the token that every step commits', () => {
    const run = new Harness({ request: { maxTokens: 4 } });
    run.begin(1, 2);
    expect(run.verified(0, 1, 9)).toEqual(['commit 1,9', 'redraft #1 1']);
    expect(run.redraft(5)).toEqual(['verify #1 [5]']);
    // Nothing can follow, so no draft is due.
    expect(run.left(1)).toEqual([]);
    expect(run.verified(1, 1, 6)).toEqual(['commit 5,6']);
    expect(run.finished.map(({ finish }) => finish)).toEqual([undefined, 'length']);
  });

  test('of a one-token text needs no draft', () => {
    const { pipeline } = new Harness({ request: { maxTokens: 1 } });
    expect(pipeline.firstDraft()).toBeUndefined();
    expect(pipeline.next(0, true)).toMatchObject([{ kind: 'verify', block: [], overlapped: false }]);
  });
});

describe('a grammar', () => {
  /** A grammar of ascending tokens. The mask of a position is the previous token. */
  const ascending = (last = 0): GrammarState => ({
    after: (token) => (token > last ? ascending(token) : undefined),
    mask: Uint8Array.of(last),
    forced: () => [],
  });
  const grammar = ascending();

  test('cuts blocks at the first disallowed token, and yields the mask of each position', () => {
    const run = new Harness({ request: { maxTokens: 50, grammar } });
    run.pipeline.firstDraft();
    run.pipeline.receive({ kind: 'redraft', step: undefined, draft: draft([0, 2, 5, 4]), at: 0 });
    const [call] = run.pipeline.next(0, true);
    expect(call).toMatchObject({ kind: 'verify', block: [2, 5], allowed: [0, 2, 5].map((t) => Uint8Array.of(t)) });
  });

  test('cuts blocks where their masks take too long', () => {
    let elapsed = 0;
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => elapsed);
    const slow = (last = 0): GrammarState => ({
      ...ascending(last),
      after: (token) => (token > last ? slow(token) : undefined),
      get mask() {
        elapsed += 3;
        return Uint8Array.of(last);
      },
    });
    const run = new Harness({ request: { maxTokens: 50, grammar: slow() } });
    run.pipeline.firstDraft();
    run.pipeline.receive({ kind: 'redraft', step: undefined, draft: draft([0, 2, 5, 7]), at: 0 });
    expect(run.pipeline.next(0, true)).toMatchObject([{ kind: 'verify', block: [2] }]);
    clock.mockRestore();
  });

  test('advances over the tokens that steps sent ahead assume', () => {
    const run = new Harness({ request: { maxTokens: 50, grammar } });
    run.begin(2, 5);
    run.left(0);
    expect(run.drafted(0, [2, 6, 8, 7])).toEqual(['verify #1 [8] after 2:6']);
    const other = new Harness({ request: { maxTokens: 50, grammar } });
    other.begin(2, 5);
    other.left(0);
    // An outcome that the grammar does not allow is not expected.
    expect(other.drafted(0, [2, 3, 8])).toEqual([]);
  });

  test('broken by the verifier is an error', () => {
    const run = new Harness({ request: { maxTokens: 50, grammar } });
    run.begin(2);
    expect(() => run.verified(0, 1, 1)).toThrow('the verifier chose token 1, which the grammar does not allow');
  });
});

describe('plain steps', () => {
  const begin = (parts: Partial<PipelineParts> = {}) => {
    const run = new Harness({ isPlain: true, ...parts });
    run.drafterAvailable = false;
    return { run, commands: run.next() };
  };

  test('are sent ahead of any outcome, one at first', () => {
    const { run, commands } = begin();
    expect(commands).toEqual(['verify #0 []', 'verify #1 [] after any']);
    expect(run.verified(0, 0, 5)).toEqual(['commit 5', 'verify #2 [] after any']);
    expect(run.verified(1, 0, 6)).toEqual(['commit 6', 'verify #3 [] after any']);
    expect(run.finished.map(({ tokens }) => tokens)).toEqual([[5], [6]]);
  });

  test.each([
    ['twice as long as a run, two', 450, 2],
    ['a hundred times as long, as many as the limit allows', 15_000, 4],
    ['shorter, one', 160, 1],
  ])('keep the verifier busy: with a round trip %s', (_, micros, count) => {
    const { run } = begin();
    run.verified(0, 0, 5, micros);
    expect(run.steps).toHaveLength(2 + count);
  });

  test('are not sent ahead if the limit is 0', () => {
    const { run, commands } = begin({ limits: { ahead: 0 } });
    expect([...commands, ...run.verified(0, 0, 5)]).toEqual(['verify #0 []', 'commit 5', 'verify #1 []']);
  });

  test('do not exceed the number of tokens to generate', () => {
    const { run, commands } = begin({ request: { maxTokens: 2 } });
    expect([...commands, ...run.verified(0, 0, 5), ...run.verified(1, 0, 6)]).toEqual([
      'verify #0 []',
      'verify #1 [] after any',
      'commit 5',
      'commit 6',
    ]);
    expect(run.finished.at(-1)?.finish).toBe('length');
  });

  test('are dropped at the end of the text', () => {
    const { run } = begin();
    expect(run.verified(0, 0, 0)).toEqual(['commit 0', 'drop #1']);
    expect(run.finished.at(-1)).toMatchObject({ finish: 'stop', tokens: [] });
  });

  test('are sent again if the verifier is lost', () => {
    const { run } = begin();
    run.verified(0, 0, 5, 450);
    expect(run.verified(1)).toEqual([
      'drop #2',
      'drop #3',
      'verify #1 []',
      'verify #4 [] after any',
      'verify #5 [] after any',
    ]);
  });
});
