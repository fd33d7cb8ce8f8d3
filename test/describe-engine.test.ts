import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { VerifierService } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { loadManifest } from '@ptp/protocol/manifest';
import { implement, serve } from '@ptp/protocol/server';
import { pino } from 'pino';
import { expect, test } from 'vitest';
import { describeLocalEngine } from '../scripts/describe-engine.ts';

test('the banner names the processor and the threads that the verifier reports', async () => {
  const path = 'test/models/tiny';
  const model = { path, manifest: await loadManifest(path) };
  const folder = await mkdtemp(join(tmpdir(), 'ptp-banner-'));
  const address = `unix:${join(folder, 'socket')}`;
  let device = 'webgpu (NVIDIA H200, driver 570)';
  const service = implement(VerifierService, {
    getTarget: () => ({ device, threads: 3 }),
    verify: async function* () {},
  });
  const server = await serve({ address, services: [service], logger: pino({ level: 'silent' }) });
  const described = (PTP_DEVICE: string) => describeLocalEngine({ PTP_LISTEN: address, PTP_DEVICE }, model);
  expect(await described('auto')).toBe('ONNX Runtime on webgpu (NVIDIA H200, driver 570)');
  expect(await described('cpu')).toBe('ONNX Runtime on the CPU, 1 thread');
  device = 'cpu';
  expect(await described('auto')).toBe('ONNX Runtime on the CPU, 1 thread');

  const gguf = { ...model, path: 'x.gguf' };
  const onLlama = (PTP_GPU_LAYERS: string) => describeLocalEngine({ PTP_LISTEN: address, PTP_GPU_LAYERS }, gguf);
  expect(await onLlama('0')).toBe('llama.cpp on the CPU, 3 threads');
  device = 'cuda (NVIDIA H200)';
  expect(await onLlama('2')).toBe('llama.cpp on cuda (NVIDIA H200), 2 layers, and the CPU, 3 threads');
  await server.close(0);
  expect(await onLlama('0')).toBe('llama.cpp');
  await rm(folder, { recursive: true });
});
