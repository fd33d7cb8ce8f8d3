import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { startOnDevice } from '../../src/onnx/device.ts';
import { gpuNames } from '../../src/onnx/gpu-names.ts';
import { loadModel, type OnnxModel } from '../../src/onnx/model.ts';
import { openTargetEngine } from '../../src/open-engine.ts';

const folder = (name: string) => fileURLToPath(new URL(`../../../test/models/${name}`, import.meta.url));
const logger = { info: vi.fn(), warn: vi.fn() };
let model: OnnxModel;
let root: string;
beforeAll(async () => {
  ({ model } = await loadModel('target', { dir: folder('tiny') }));
  root = await mkdtemp(join(tmpdir(), 'ptp-gpus-'));
});
afterAll(() => rm(root, { recursive: true }));

beforeEach(() => {
  vi.stubEnv('VK_DRIVER_FILES', '/drivers/nvidia_icd.json');
  vi.stubEnv('VK_LOADER_DRIVERS_DISABLE', '*own*');
});
afterEach(() => {
  vi.unstubAllEnvs();
  logger.info.mockClear();
});

/** Starts a model like a worker whose GPU fails with a message. */
const start = (failure?: string | number) =>
  vi.fn(async ({ device, info }: OnnxModel) => {
    const cause = typeof failure === 'string' ? new Error(failure) : failure;
    if (device === 'webgpu' && failure) throw new Error('the target cannot be loaded', { cause });
    return { device, name: info.device, fingerprint: info.fingerprint };
  });

const noAdapter = 'webgpu_context.cc:136 false. Failed to get a WebGPU adapter: No supported adapters\n';

test('a model starts on the CPU by default, and on a GPU with `webgpu` or `auto`', async () => {
  const { fingerprint } = model.info;
  expect(fingerprint).toContainEqual(expect.stringContaining('onnxruntime-node'));
  expect(await startOnDevice(model, {}, start(noAdapter))).toEqual({ device: 'cpu', name: 'cpu', fingerprint });
  const onGpu = { device: 'webgpu', name: 'webgpu (Vulkan driver nvidia_icd.json)', fingerprint: undefined };
  expect(await startOnDevice(model, { device: 'webgpu', logger }, start())).toEqual(onGpu);
  expect(process.env.VK_LOADER_DRIVERS_DISABLE).toBe('*own*');
  expect(await startOnDevice(model, { device: 'auto', logger }, start())).toEqual(onGpu);
  expect(process.env.VK_LOADER_DRIVERS_DISABLE).toBe('*own*,*lvp*,*swiftshader*');
});

test.each([
  [noAdapter, 'WebGPU finds no GPU: install the Vulkan driver of the GPU'],
  ['Failed to get a WebGPU device: limits', 'the driver of the GPU opens no WebGPU device: update the driver'],
  ['this build of onnxruntime has no WebGPU', /^onnxruntime-node has no WebGPU for \w+ on \w+/],
  ['no kernel for Foo\n  at bar', 'the target does not start on the GPU: no kernel for Foo'],
  [1, 'the target does not start on the GPU: its thread ended with status 1'],
])('a failed start on a GPU is an error with the next step, or the CPU for `auto`: %s', async (failure, problem) => {
  const error = await startOnDevice(model, { device: 'webgpu', logger }, start(failure)).catch((reason) => reason);
  expect(error).toMatchObject({ code: 'failed_precondition', field: 'PTP_DEVICE' });
  expect(error.message).toMatch(problem);
  expect(error.message).toMatch(/\. To run the target on the CPU, set PTP_DEVICE to cpu$/);
  expect(await startOnDevice(model, { device: 'auto', logger }, start(failure))).toMatchObject({ device: 'cpu' });
  const reason = typeof problem === 'string' ? problem : expect.stringMatching(problem);
  expect(logger.info).toHaveBeenCalledExactlyOnceWith({ reason }, 'the target runs on the CPU');
});

test('a model that no GPU runs is rejected before a start', async () => {
  const { model: inPlace } = await loadModel('target', { dir: folder('tiny-in-place') });
  const starting = start();
  await expect(startOnDevice(inPlace, { device: 'webgpu' }, starting)).rejects.toThrow('extends its caches in place');
  expect(starting).not.toHaveBeenCalled();
  expect(await startOnDevice(inPlace, { device: 'auto' }, starting)).toMatchObject({ device: 'cpu' });
  const gguf = openTargetEngine({ dir: '/models/x.gguf', device: 'webgpu' });
  await expect(gguf).rejects.toMatchObject({ field: 'PTP_DEVICE', message: expect.stringContaining('PTP_GPU_LAYERS') });
});

/** Opens the tiny target in a new process, as Vulkan reads its list of drivers once per process. Returns the output. */
async function opened(device: string, drivers: string): Promise<string> {
  const script = `
    const { openTargetEngine } = await import('${new URL('../../src/open-engine.ts', import.meta.url)}');
    const engine = await openTargetEngine({ dir: ${JSON.stringify(folder('tiny'))}, device: '${device}' });
    console.log(engine.info.device);
    await engine.dispose();`;
  const args = ['--eval', script];
  const env = { ...process.env, VK_DRIVER_FILES: drivers };
  const { stdout, stderr } = await promisify(execFile)(process.execPath, args, { env }).catch((error) => error);
  return stdout || stderr;
}

test('an adapter that Vulkan does not have ends the start, and a software adapter does not count for `auto`', async () => {
  expect(await opened('webgpu', '/nowhere/driver.json')).toMatch(/WebGPU finds no GPU|has no WebGPU/);
  expect(await opened('auto', '/usr/lib/chromium/vk_swiftshader_icd.json')).toBe('cpu\n');
}, 60_000);

test('the kernel names the GPUs', async () => {
  const write = async (path: string, text: string) => {
    await mkdir(dirname(join(root, path)), { recursive: true });
    await writeFile(join(root, path), text);
  };
  const names = (env = {}) => gpuNames(env, 'linux', root);
  expect(await names()).toEqual([]);
  await write('proc/driver/nvidia/version', 'NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 1\n');
  await write('proc/driver/nvidia/gpus/0000:01:00.0/information', 'Model: \t\t NVIDIA H200\nIRQ: 1\n');
  for (const [node, vendor, driver] of [
    ['renderD128', '0x10de', 'nvidia'],
    ['renderD129', '0x1002', 'amdgpu'],
  ]) {
    await write(`sys/class/drm/${node}/device/vendor`, `${vendor}\n`);
    await write(`sys/class/drm/${node}/device/device`, '0x744c\n');
    await symlink(`/sys/bus/pci/drivers/${driver}`, join(root, `sys/class/drm/${node}/device/driver`));
  }
  expect(await names()).toEqual(['NVIDIA H200, driver 570.86.15', 'AMD 0x744c, amdgpu']);
  expect(await names({ VK_ICD_FILENAMES: '/a/b.json' })).toEqual(['Vulkan driver b.json']);
});
