import { cp, mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { openDraftEngine, openTargetEngine } from '@ptp/engine/open-engine';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { checkFiles, loadManifest } from '../src/manifest.ts';

const tiny = fileURLToPath(new URL('../../test/models/tiny', import.meta.url));
let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ptp-model-'));
  await cp(tiny, dir, { recursive: true });
});
afterEach(() => rm(dir, { recursive: true }));

async function change(edit: (manifest: Record<string, unknown>) => void): Promise<void> {
  const manifest = JSON.parse(await readFile(join(dir, 'manifest.json'), 'utf8'));
  edit(manifest);
  await writeFile(join(dir, 'manifest.json'), JSON.stringify(manifest));
}

test('loads the manifest of a model folder', async () => {
  const manifest = await loadManifest(dir);
  expect(manifest).toMatchObject({ id: 'tiny', context_length: 256, end_of_text: 0, max_slots: [1, 4] });
  await checkFiles(dir, manifest, Object.keys(manifest.files));
});

test('an error names a file that is changed, truncated, missing or not listed', async () => {
  const manifest = await loadManifest(dir);
  const check = (name: string) => expect(checkFiles(dir, manifest, [name])).rejects;
  const weights = await readFile(join(dir, 'target.weights'));
  weights[5000] = (weights[5000] ?? 0) ^ 1;
  await writeFile(join(dir, 'target.weights'), weights);
  await check('target.weights').toThrow('`target.weights` does not have the SHA-256');
  await truncate(join(dir, 'target.weights'), 10);
  await check('target.weights').toThrow(/`target.weights` must have \d+ bytes, got 10/);
  await rm(join(dir, 'target.weights'));
  await check('target.weights').toThrow('`target.weights` cannot be read');
  await check('other.onnx').toThrow('`other.onnx` is not listed');
  await expect(openTargetEngine({ dir })).rejects.toMatchObject({ code: 'failed_precondition' });
});

test('a manifest that this version cannot read is an error', async () => {
  await change((manifest) => {
    manifest.format_version = 2;
  });
  await expect(loadManifest(dir)).rejects.toThrow('`format_version` in `manifest.json`');
  await writeFile(join(dir, 'manifest.json'), '{');
  await expect(loadManifest(dir)).rejects.toThrow('`manifest.json` is missing or is not JSON');
});

test.each([
  [{ cache_type: 'float16' }, '`target.cache_type` in `manifest.json`: must be float32 unless `caches` is in_place'],
  [{ caches: 'in_place', device: 'gpu' }, '`target.device` in `manifest.json`: must be absent if `caches` is in_place'],
])('a target with %o, which no graph has, is an error', async (target, message) => {
  await change((manifest) => {
    manifest.target = target;
  });
  await expect(loadManifest(dir)).rejects.toThrow(message);
});

test('`pick` defaults to cdf, with one uniform', async () => {
  await change((manifest) => {
    delete manifest.pick;
    manifest.uniforms_per_position = 1;
  });
  expect(await loadManifest(dir)).toMatchObject({ pick: 'cdf', uniforms_per_position: 1 });
});

test('the number of uniforms must match `pick` and the vocabulary', async () => {
  const set = (pick: string, count: number) =>
    change((manifest) => {
      Object.assign(manifest, { pick, uniforms_per_position: count });
    });
  await set('tree', 9);
  expect(await loadManifest(dir)).toMatchObject({ pick: 'tree', uniforms_per_position: 9 });
  await set('tree', 1);
  await expect(loadManifest(dir)).rejects.toThrow(
    '`uniforms_per_position` in `manifest.json`: must be 9 for `pick` tree and a vocabulary of 257, got 1',
  );
  await set('cdf', 9);
  await expect(loadManifest(dir)).rejects.toThrow('must be 1 for `pick` cdf and a vocabulary of 257, got 9');
  await set('stack', 1);
  await expect(loadManifest(dir)).rejects.toThrow('`pick` in `manifest.json`');
});

test('a graph that onnxruntime cannot load is an error', async () => {
  await writeFile(join(dir, 'target.b1.onnx'), 'nonsense');
  const { createHash } = await import('node:crypto');
  await change((manifest) => {
    const files = manifest.files as Record<string, unknown>;
    files['target.b1.onnx'] = { bytes: 8, sha256: createHash('sha256').update('nonsense').digest('hex') };
  });
  await expect(openTargetEngine({ dir })).rejects.toThrow(`the target in \`${dir}\` cannot be loaded`);
});

test('a folder may hold a target without a drafter', async () => {
  await change((manifest) => {
    delete manifest.drafter;
    delete (manifest.bytes_per_token as Record<string, unknown>).drafter;
    Object.assign(manifest, { begin_of_text: null, stop_tokens: [5] });
  });
  expect(await loadManifest(dir)).toMatchObject({ begin_of_text: null, stop_tokens: [5] });
  const engine = await openTargetEngine({ dir });
  expect(engine.info.contextLength).toBe(256);
  await engine.dispose();
  await expect(openDraftEngine({ dir })).rejects.toThrow('`manifest.json` of the model folder must have `drafter`');
});
