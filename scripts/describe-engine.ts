/** Describes engines for the banner. */
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { connect } from '@ptp/protocol/client';
import { EngineService, type GetEngineResponse } from '@ptp/protocol/gen/ptp/v1/engine_pb';
import { VerifierService } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { isGguf } from '@ptp/protocol/manifest';
import { isHttp, settings } from '@ptp/service-kit/settings';
import { loadTls, tlsSettings } from '@ptp/service-kit/tls-settings';
import { verifierSettings } from '../verifier/src/settings.ts';
import type { ReadyModel } from './start-model.ts';
import { root, sourceType } from './supervisor.ts';

/** Describes the engine inside the verifier: its device and its number of threads. */
export async function describeLocalEngine(
  env: NodeJS.ProcessEnv,
  { path, manifest }: ReadyModel,
  llama: LlamaProbe,
): Promise<string> {
  const { threads, gpuLayers, device: wanted } = settings(verifierSettings, env);
  const count = (n: number) => `${n} thread${n === 1 ? '' : 's'}`;
  if (!isGguf(path)) {
    const processor = wanted === 'cpu' ? wanted : await targetDevice(env);
    if (processor === 'cpu') return `ONNX Runtime on the CPU, ${count(threads || 1)}`;
    return ['ONNX Runtime', processor].filter(Boolean).join(' on ');
  }
  const device = await llama.device();
  if (!device) return 'llama.cpp';
  const { gpu, names, threads: preset } = device;
  const onGpu = gpu && gpuLayers !== 0;
  const layers =
    typeof gpuLayers === 'number' ? `${Math.min(gpuLayers, manifest.sizes.layers)} layers` : 'as many layers as fit';
  const hardware = onGpu ? `${names.join(', ')} (${gpu}, ${layers}) and the CPU` : 'the CPU';
  return `llama.cpp on ${hardware}, ${count(threads || preset)}`;
}

/** Returns the processor that the verifier reports, or undefined if it does not answer. */
async function targetDevice(env: NodeJS.ProcessEnv): Promise<string | undefined> {
  const { listen } = settings(verifierSettings, env);
  const tls = await loadTls(settings(tlsSettings, env));
  const client = connect(VerifierService, listen.target, { apart: true, ...(tls && { tls }) });
  const answer = await client.getTarget({}, { deadlineMs: 5_000 }).catch(() => undefined);
  client.close();
  return answer?.device;
}

/** Output of llama-device.ts. */
interface LlamaDevice {
  readonly gpu: string | false;
  readonly names: readonly string[];
  readonly threads: number;
}

/** Detects the devices that llama.cpp would use, at the first call of `device`. */
export class LlamaProbe {
  readonly #env: NodeJS.ProcessEnv;
  #device: Promise<LlamaDevice | undefined> | undefined;

  constructor(env: NodeJS.ProcessEnv) {
    this.#env = env;
  }

  /** Returns undefined if llama.cpp does not start. */
  device(): Promise<LlamaDevice | undefined> {
    this.#device ??= probeLlama(this.#env);
    return this.#device;
  }
}

async function probeLlama(env: NodeJS.ProcessEnv): Promise<LlamaDevice | undefined> {
  const script = join(root, 'scripts', `llama-device${sourceType}`);
  const probe = await promisify(execFile)(process.execPath, [script], { env }).catch(() => undefined);
  return probe && JSON.parse(probe.stdout);
}

/** Describes the engine at an address: its device and its number format. */
export async function describeEngine(address: string): Promise<string> {
  if (isHttp(address)) return `SGLang at ${address}`;
  const engine = await engineAt(address);
  return engine ? `PyTorch on ${engine.device}, ${engine.precision}` : `PyTorch at ${address}`;
}

/** Describes the PTP drafter at an address. */
export async function describeDrafter(address: string): Promise<string> {
  const engine = await engineAt(address);
  if (!engine) return `PTP drafter at ${address}`;
  const { device, precision, drafter } = engine;
  return `PTP drafter on ${device}, ${precision}, blocks of up to ${drafter?.maxBranchLength ?? 0} tokens`;
}

/** Returns undefined if the engine does not answer in time, because a busy engine must not stop the server. */
async function engineAt(address: string): Promise<GetEngineResponse | undefined> {
  const client = connect(EngineService, address, { apart: true });
  const answer = await client.getEngine({}, { deadlineMs: 5_000 }).catch(() => undefined);
  client.close();
  return answer;
}
