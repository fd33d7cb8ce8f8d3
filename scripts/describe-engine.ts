/** Describes engines for the banner. */
import { connect } from '@ptp/protocol/client';
import { EngineService, type GetEngineResponse } from '@ptp/protocol/gen/ptp/v1/engine_pb';
import { type GetTargetResponse, VerifierService } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { isGguf } from '@ptp/protocol/manifest';
import { isHttp, settings } from '@ptp/service-kit/settings';
import { loadTls, tlsSettings } from '@ptp/service-kit/tls-settings';
import { verifierSettings } from '../verifier/src/settings.ts';
import type { ReadyModel } from './start-model.ts';

/** Describes the engine inside the verifier: its device and its number of threads. */
export async function describeLocalEngine(env: NodeJS.ProcessEnv, { path, manifest }: ReadyModel): Promise<string> {
  const { threads: set, gpuLayers, device: wanted } = settings(verifierSettings, env);
  const isLlama = isGguf(path);
  if (!isLlama && wanted === 'cpu') return `ONNX Runtime on the CPU, ${count(set || 1)}`;
  const { device = '', threads = 0 } = (await targetAt(env)) ?? {};
  if (!isLlama && device === 'cpu') return `ONNX Runtime on the CPU, ${count(set || 1)}`;
  if (!isLlama) return ['ONNX Runtime', device].filter(Boolean).join(' on ');
  if (!device) return 'llama.cpp';
  const layers =
    typeof gpuLayers === 'number' ? `${Math.min(gpuLayers, manifest.sizes.layers)} layers` : 'as many layers as fit';
  return `llama.cpp on ${device === 'cpu' ? '' : `${device}, ${layers}, and `}the CPU, ${count(threads)}`;
}

const count = (threads: number) => `${threads} thread${threads === 1 ? '' : 's'}`;

/** Returns the verifier's description of the target, or undefined if it does not answer. */
async function targetAt(env: NodeJS.ProcessEnv): Promise<GetTargetResponse | undefined> {
  const { listen } = settings(verifierSettings, env);
  const tls = await loadTls(settings(tlsSettings, env));
  const client = connect(VerifierService, listen.target, { apart: true, ...(tls && { tls }) });
  const answer = await client.getTarget({}, { deadlineMs: 5_000 }).catch(() => undefined);
  client.close();
  return answer;
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
