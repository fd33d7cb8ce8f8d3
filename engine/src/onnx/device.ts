import { PtpError } from '@ptp/protocol/errors';
import type { EngineOptions } from '../types.ts';
import { gpuNames } from './gpu-names.ts';
import type { OnnxModel } from './model.ts';

/** Vulkan drivers that compute on the CPU, as patterns for the names of their files. */
const SOFTWARE_DRIVERS = '*lvp*,*swiftshader*';

/** Reason not to start a model on a GPU. */
class UnsuitableForGpu extends Error {}

/** Causes of a failed start on a GPU: a pattern of onnxruntime's message, and an explanation with the next step. */
const CAUSES: readonly (readonly [RegExp, string])[] = [
  [/no WebGPU/, `onnxruntime-node has no WebGPU for ${process.platform} on ${process.arch}`],
  [/Failed to get a WebGPU adapter/, 'WebGPU finds no GPU: install the Vulkan driver of the GPU'],
  [/Failed to get a WebGPU device/, 'the driver of the GPU opens no WebGPU device: update the driver'],
];

/**
 * Starts a model on the processor that PTP_DEVICE names; for `auto`, on a GPU, or on the CPU if this fails.
 *
 * @param start function that starts a model on the processor `model.device`
 * @throws PtpError `failed_precondition` if `webgpu` fails, or whatever `start` throws on the CPU
 */
export async function startOnDevice<Started>(
  model: OnnxModel,
  { device = 'cpu', logger }: Pick<EngineOptions, 'device' | 'logger'>,
  start: (model: OnnxModel) => Promise<Started>,
): Promise<Started> {
  if (device === 'cpu') return start(onCpu(model, logger));
  try {
    const started = await start(await onGpu(model, device));
    logger?.info(`the ${model.kind} runs on a GPU`);
    return started;
  } catch (cause) {
    const problem = problemOf(model, cause);
    if (device === 'webgpu') {
      const message = `${problem}. To run the ${model.kind} on the CPU, set PTP_DEVICE to cpu`;
      throw new PtpError('failed_precondition', message, { field: 'PTP_DEVICE', cause });
    }
    logger?.info({ reason: problem }, `the ${model.kind} runs on the CPU`);
    return start(onCpu(model, logger));
  }
}

/** Graphs for a GPU give results on the CPU that depend on the batch, so a self-check that passes proves little. */
function onCpu(model: OnnxModel, logger: EngineOptions['logger']): OnnxModel {
  if (!model.onDevice) return model;
  logger?.warn(
    `the ${model.kind} was exported for GPUs: on the CPU, its text may depend on drafts and on other requests. Export it without --device gpu for the CPU`,
  );
  const { fingerprint: _, ...info } = model.info;
  return { ...model, info };
}

async function onGpu(model: OnnxModel, device: 'webgpu' | 'auto'): Promise<OnnxModel> {
  if (model.inPlace) {
    throw new UnsuitableForGpu(
      `the ${model.kind} extends its caches in place, which works only in the memory of the CPU`,
    );
  }
  const names = await gpuNames();
  if (device === 'auto') {
    if (names.length === 0)
      throw new UnsuitableForGpu('the operating system lists no GPU: install the driver of the GPU');
    ignoreSoftwareAdapters();
  }
  // The self-check's result must not be kept: it depends on the GPU and its driver, which onnxruntime does not report.
  const { fingerprint: _, ...info } = model.info;
  return { ...model, device: 'webgpu', info: { ...info, device: `webgpu (${names.join(' or ') || 'unknown GPU'})` } };
}

/** Hides software adapters from the Vulkan loader, which reads this variable when WebGPU starts. */
function ignoreSoftwareAdapters(): void {
  const { VK_LOADER_DRIVERS_DISABLE: others } = process.env;
  process.env.VK_LOADER_DRIVERS_DISABLE = [others, SOFTWARE_DRIVERS].filter(Boolean).join(',');
}

function problemOf({ kind }: OnnxModel, error: unknown): string {
  if (error instanceof UnsuitableForGpu) return error.message;
  const { cause = error } = error as { cause?: unknown };
  const text = cause instanceof Error ? cause.message : `its thread ended with status ${cause}`;
  const known = CAUSES.find(([pattern]) => pattern.test(text))?.[1];
  return known ?? `the ${kind} does not start on the GPU: ${text.split('\n')[0]}`;
}
