import { expect, test } from 'vitest';
import { type ChoiceRequest, generateChoices, newUsage } from '../../src/openai/choices.ts';
import { type Script, ScriptedGenerator } from '../testing/scripted-generator.ts';
import { tokenizer } from '../testing/test-server.ts';

const sampling = { temperature: 0, topK: 0, topP: 1 };
/** Tokens of three steps. */
const words = [' a', ' b', ' c'].map((word) => tokenizer.encode(word));

/** Generates one choice per script, and returns the signals that the generator received. */
async function signalsOf(scripts: readonly Script[], stop: readonly string[] = [], until = Number.POSITIVE_INFINITY) {
  const signals: AbortSignal[] = [];
  const generator = new (class extends ScriptedGenerator {
    override generate(...[request, signal]: Parameters<ScriptedGenerator['generate']>) {
      signals.push(signal);
      return super.generate(request, signal);
    }
  })();
  generator.script = ({ seed }) => scripts[Number(seed)] as Script;
  const requests = scripts.map(
    (_, i): ChoiceRequest => ({ prompt: [1], maxTokens: 9, seed: BigInt(i), stop, first: i === 0, sampling }),
  );
  const deltas = generateChoices(
    generator,
    tokenizer,
    requests,
    { usage: newUsage(1), warnings: new Set<string>() },
    new AbortController().signal,
  );
  let count = 0;
  let error: unknown;
  try {
    for await (const _ of deltas) if (++count >= until) break;
  } catch (thrown) {
    error = thrown;
  }
  return { signals, error };
}

test.each([
  ['the end of the text', []],
  ['a stop string', [' b']],
])('finished choices are not aborted: an abort would reset their streams (%s)', async (_, stop) => {
  const finished: Script = { steps: words, finish: 'stop' };
  const { signals, error } = await signalsOf([finished, { ...finished, delayMillis: 2 }], stop);
  expect(error).toBeUndefined();
  expect(signals.map(({ aborted }) => aborted)).toEqual([false, false]);
});

test('the other choices are aborted if one fails or the reader leaves', async () => {
  const endless: Script = { steps: words, endless: true, delayMillis: 1 };
  const failed = await signalsOf([{ steps: words, error: new Error('lost') }, endless]);
  expect(failed.error).toEqual(new Error('lost'));
  expect(failed.signals.map(({ aborted }) => aborted)).toEqual([true, true]);
  const left = await signalsOf([endless, endless], [], 1);
  expect(left.signals.map(({ aborted }) => aborted)).toEqual([true, true]);
});
