import { fileURLToPath } from 'node:url';
import type { SamplingParams } from '@ptp/protocol/sampling-params';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { useSoftwareGpu, webgpuMissing } from '../../../test/webgpu.ts';
import { openDraftEngine, openTargetEngine } from '../../src/open-engine.ts';
import { accept } from '../../src/sampling/accept.ts';
import { randomTokens } from '../../src/sampling/uniforms.ts';
import type { DraftEngine, TargetEngine, TargetSlot } from '../../src/types.ts';

// The tiny pair runs on a software GPU. A run takes 0.1 s on it, and a graph takes some seconds to compile, so all
// runs have several slots and use the same graph.

const dir = fileURLToPath(new URL('../../../test/models/tiny', import.meta.url));
const greedy: SamplingParams = { temperature: 0, topK: 0, topP: 1 };
const settings: SamplingParams[] = [
  greedy,
  { temperature: 1, topK: 0, topP: 1 },
  { temperature: 0.8, topK: 20, topP: 0.9 },
  { temperature: 1.4, topK: 100, topP: 0.99, minP: 0.01 },
];
/** Maximum number of tokens in a chunk of a prompt on software GPUs. */
const CHUNK = 31;

describe.skipIf(webgpuMissing)('on WebGPU', { timeout: 600_000 }, () => {
  let target: TargetEngine;
  let onCpu: TargetEngine;
  let drafter: DraftEngine;
  let drafterOnCpu: DraftEngine;
  beforeAll(async () => {
    useSoftwareGpu();
    onCpu = await openTargetEngine({ dir });
    drafterOnCpu = await openDraftEngine({ dir });
    target = await openTargetEngine({ dir, device: 'webgpu' });
    drafter = await openDraftEngine({ dir, device: 'webgpu' });
  }, 300_000);
  afterAll(() => Promise.all([target, onCpu, drafter, drafterOnCpu].map((engine) => engine?.dispose())), 60_000);

  /** Continues texts by at least `count` tokens, with drafts if there is a drafter. */
  async function write(engine: TargetEngine, texts: Text[], count: number, drafting?: DraftEngine) {
    const rows = texts.map(({ prompt, ...picking }) => ({
      text: [...prompt],
      draft: [] as number[],
      end: prompt.length + count,
      read: 0,
      drafterRead: 0,
      picking,
      slot: { sequence: engine.open(), ...picking },
      draftSlot: drafting && { sequence: drafting.open(), ...picking },
    }));
    let runs = 0;
    for (; rows.some(({ text, end }) => text.length < end); runs++) {
      if (drafting) {
        const slots = rows.map(({ text, drafterRead, draftSlot, picking }) => {
          const at = Math.min(drafterRead, text.length - 1);
          const branches = [{ visible: text.length, length: 4 }];
          return { sequence: draftSlot?.sequence ?? 0, ...picking, at, tokens: text.slice(at), branches };
        });
        const { outputs } = await drafting.run(slots);
        for (const [i, row] of rows.entries()) {
          row.drafterRead = row.text.length;
          row.draft = [...(outputs[i]?.branches[0]?.tokens ?? [])];
        }
      }
      const slots = rows.map(({ text, read, draft, slot }) => ({
        ...slot,
        at: read,
        tokens: [...text.slice(read), ...draft],
      }));
      const { outputs } = await engine.run(slots);
      for (const [i, row] of rows.entries()) {
        const picks = outputs[i]?.picks.subarray(row.text.length - 1 - row.read) ?? [];
        row.text.push(...accept(row.draft, picks).tokens);
        row.read = row.text.length - 1;
      }
    }
    for (const { slot, draftSlot } of rows) {
      engine.close(slot.sequence);
      if (draftSlot) drafting?.close(draftSlot.sequence);
    }
    return { texts: rows.map(({ text, end }) => text.slice(0, end)), runs };
  }

  test('the target names the GPU, and the target on the CPU the CPU', () => {
    expect(target.info).toMatchObject({ device: 'webgpu (Vulkan driver vk_swiftshader_icd.json)' });
    expect([onCpu.info.device, target.info.fingerprint]).toEqual(['cpu', undefined]);
  });

  test('greedy texts of 200 tokens equal those of the CPU', async () => {
    const prompts = Array.from({ length: 10 }, (_, i) => randomTokens(BigInt(i + 1), 8, 257));
    for (let first = 0; first < prompts.length; first += 4) {
      const picking = { sampling: greedy, uniforms: { seed: 0n, offset: 0 } };
      const some = prompts.slice(first, first + 4).map((prompt) => ({ prompt, ...picking }));
      const { texts } = await write(onCpu, some, 200);
      // A model that picks each next token of a text writes this text.
      const slots = texts.map(() => ({ sequence: target.open(), ...picking }));
      for (let at = 0; at < 207; at += CHUNK) {
        const end = Math.min(at + CHUNK, 207);
        const { outputs } = await target.run(
          slots.map((slot, i) => ({ ...slot, at, tokens: texts[i]?.slice(at, end) ?? [] })),
        );
        for (const [i, { picks }] of outputs.entries()) {
          const own = Math.max(0, 7 - at);
          expect([...picks.subarray(own)]).toEqual(texts[i]?.slice(at + own + 1, end + 1));
        }
      }
      for (const { sequence } of slots) target.close(sequence);
    }
  });

  test('the drafter drafts the same tokens as on the CPU', async () => {
    const tokens = randomTokens(2n, 20, 257);
    const drafts = [drafter, drafterOnCpu].map(async (engine) => {
      const slots = settings.map((sampling) => {
        const branches = [{ visible: 20, length: 4 }];
        return { sequence: engine.open(), at: 0, tokens, sampling, uniforms: { seed: 5n, offset: 0 }, branches };
      });
      return (await engine.run(slots)).outputs.map(({ branches: [branch] }) => branch);
    });
    const [onGpu = [], expected = []] = await Promise.all(drafts);
    expect(onGpu.map((branch) => branch?.tokens)).toEqual(expected.map((branch) => branch?.tokens));
    const confidences = onGpu.flatMap((branch) => [...(branch?.confidences ?? [])]);
    expect(confidences).toHaveLength(16);
    const own = expected.flatMap((branch) => [...(branch?.confidences ?? [])]);
    for (const [i, confidence] of confidences.entries()) expect(confidence).toBeCloseTo(own[i] as number, 4);
  });

  test('texts of 20 seeds are the same with and without drafts, in fewer runs', async () => {
    const prompt = Array.from('import torch', (c) => c.charCodeAt(0) - 32);
    const [on, off] = [[], []] as [number[][], number[][]];
    const runs = { on: 0, off: 0 };
    for (let first = 0; first < 20; first += 4) {
      const texts = settings.map((sampling, i) => ({
        prompt,
        sampling,
        uniforms: { seed: BigInt(first + i), offset: 0 },
      }));
      // The drafter is on the CPU to save time: the texts depend on the target only.
      const drafted = await write(target, texts, 8, drafterOnCpu);
      const plain = await write(target, texts, 8);
      on.push(...drafted.texts);
      off.push(...plain.texts);
      runs.on += drafted.runs;
      runs.off += plain.runs;
    }
    expect(on).toEqual(off);
    expect(runs.on).toBeLessThan(0.9 * runs.off);
  });

  test('a failed run ends the engine, whereas on the CPU only the run fails', async () => {
    const failing = (engine: TargetEngine) => {
      const slots = [engine.open(), engine.open()].map((sequence) => ({
        sequence,
        at: 0,
        tokens: [1, 2],
        sampling: greedy,
        uniforms: { seed: 0n, offset: 0 },
        topCount: 1000, // The vocabulary has only 257 tokens.
      }));
      const send: (slots: readonly TargetSlot[]) => Promise<unknown> = Reflect.get(engine, 'send');
      return send.call(engine, slots);
    };
    await expect(failing(onCpu)).rejects.toMatchObject({ code: 'internal' });
    await onCpu.run([{ sequence: onCpu.open(), at: 0, tokens: [1, 2] }]);
    await expect(failing(target)).rejects.toMatchObject({ code: 'unavailable' });
    expect(await target.died).toMatchObject({
      code: 'unavailable',
      cause: { message: expect.stringContaining('GPU') },
    });
    expect(() => target.open()).toThrow('the engine has failed');
  });
});

interface Text {
  readonly prompt: readonly number[];
  readonly sampling: SamplingParams;
  readonly uniforms: { readonly seed: bigint; readonly offset: number };
}
