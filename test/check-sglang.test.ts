import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';
import { FakeSglang, type FakeSglangOptions } from '../engine/src/testing/fake-sglang.ts';
import { hashScorer } from '../engine/src/testing/token-scores.ts';
import { checkSglang } from '../scripts/check-sglang.ts';

const model = 'test/models/tiny';
const run = promisify(execFile);

async function start(options: Partial<FakeSglangOptions> = {}): Promise<FakeSglang> {
  const fake = await FakeSglang.start({ vocabulary: 257, score: hashScorer(257), modelPath: model, ...options });
  onTestFinished(() => fake.stop());
  return fake;
}

/** Checks a server. @returns the result, and the names of the checks that found a difference */
async function check(options: Partial<FakeSglangOptions> = {}) {
  const lines: string[] = [];
  const ok = await checkSglang((await start(options)).url, { model, invarianceMs: 500 }, (line) => lines.push(line));
  return { ok, lines, differing: lines.filter((line) => line.startsWith('DIFFERS')).map((line) => line.slice(9)) };
}

test('a server as documented passes all checks', async () => {
  const { ok, lines } = await check({ pageSize: 16 });
  expect(ok).toBe(true);
  expect(lines).toHaveLength(10);
  for (const line of lines) expect(line).toMatch(/^ok /);
}, 60_000);

const wrongs: [string, Partial<FakeSglangOptions>, string[]][] = [
  [
    'is not deterministic',
    { varies: true },
    [
      'settings suit the engine: .*start it with --enable-deterministic-inference',
      'log-probabilities do not depend on drafts: \\d+ of 186 positions differ, by up to',
      'log-probabilities do not depend on the batch: ',
      'the engine is batch-invariant: \\d+ positions compared',
    ],
  ],
  ['applies the temperature', { scales: true }, ['log-probabilities do not depend on the temperature: 32 of 32']],
  [
    'has no radix cache',
    { caches: false },
    ['settings suit the engine: .*--disable-radix-cache', 'keys and values are reused .*: 0 of a new prompt, 0 of 256'],
  ],
  [
    'has a short context',
    { maxInput: 256 },
    [
      'settings suit the engine: .*set PTP_CONTEXT_LENGTH to at most 255 \\(now 256\\)',
      'keys and values are reused .*exceeds the maximum allowed length',
      'a draft of eight tokens is scored quickly: .*exceeds the maximum',
      'the engine is batch-invariant: .*takes requests of up to 256 tokens',
    ],
  ],
  [
    'does not report its context',
    // JSON has no infinity, so the server reports null.
    { maxInput: Number.POSITIVE_INFINITY },
    ['settings suit the engine: .*its --context-length must be above PTP_CONTEXT_LENGTH \\(now 256\\)'],
  ],
  [
    'has another vocabulary',
    { vocabulary: 200, score: hashScorer(200) },
    ['answers have the expected form: .*status 400.*outside the vocabulary of 200'],
  ],
  [
    'answers wrongly',
    { fault: () => ({ alter: (meta) => meta.prompt_tokens++ }) },
    ['answers have the expected form: .*`meta_info.prompt_tokens` must be 33, got 34'],
  ],
];
test.each(wrongs)(
  'a server that %s differs',
  async (_, options, expected) => {
    const { ok, differing } = await check(options);
    expect(ok).toBe(false);
    for (const pattern of expected) expect(differing).toContainEqual(expect.stringMatching(pattern));
    if (expected.length < 4 && !options.vocabulary && !options.fault) expect(differing).toHaveLength(expected.length);
  },
  60_000,
);

test('the command ends with status 1 if something differs, and prints what', async () => {
  const fake = await start();
  await fake.stop();
  const script = run(process.execPath, ['scripts/check-sglang.ts', fake.url]);
  await expect(script).rejects.toMatchObject({
    code: 1,
    stdout: expect.stringContaining(`DIFFERS  ${fake.url} did not answer /server_info`),
  });
  await expect(run(process.execPath, ['scripts/check-sglang.ts'])).rejects.toMatchObject({
    code: 1,
    stdout: expect.stringContaining('Usage: npm run check:sglang -- URL'),
  });
  const misspelt = run(process.execPath, ['scripts/check-sglang.ts', fake.url, '--context-length', '32k']);
  await expect(misspelt).rejects.toMatchObject({
    code: 1,
    stderr: '--context-length must be an integer in [0, 16777216], got "32k"\n',
  });
});
