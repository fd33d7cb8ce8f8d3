import { PtpError } from '@ptp/protocol/errors';
import { isGguf, isHuggingFaceFolder, loadManifest } from '@ptp/protocol/manifest';
import { isHttp } from '@ptp/service-kit/settings';
import { AutoregressiveDraftEngine } from './draft-model.ts';
import { checkDraftModel } from './draft-vocabulary.ts';
import type { DraftEngine, EngineOptions, TargetEngine } from './types.ts';

/**
 * Functions that an engine's folder exports. Both throw PtpError `failed_precondition` if the model is missing or
 * damaged.
 */
interface EngineModule {
  openTargetEngine(options: EngineOptions): Promise<TargetEngine>;
  openDraftEngine(options: EngineOptions): Promise<DraftEngine>;
}

/**
 * All engines. Each engine has a folder next to `onnx/` and a line here. The engines are imported on demand, so that a
 * process loads only the native runtime that it uses.
 */
const engines = {
  remote: () => import('./remote/engine.ts'),
  sglang: () => import('./sglang/engine.ts'),
  onnx: () => import('./onnx/engine.ts'),
  'llama-cpp': () => import('./llama-cpp/engine.ts'),
} satisfies Record<string, () => Promise<EngineModule>>;

type EngineName = keyof typeof engines;

/**
 * Returns the engine that runs a model: the one at the address, if there is an address, which is SGLang at a URL; or
 * else llama.cpp for a GGUF file and ONNX Runtime for a model folder.
 *
 * @throws PtpError `failed_precondition` if only an engine in another process can run the model, or if `device` does not
 *   suit the model
 */
function engineOf({ dir, address, device }: EngineOptions): EngineName {
  if (address) return isHttp(address) ? 'sglang' : 'remote';
  if (isGguf(dir)) {
    if (device !== 'webgpu') return 'llama-cpp';
    const message = `PTP_DEVICE must be cpu or auto for \`${dir}\`, because llama.cpp runs GGUF files: it uses a GPU without this setting (PTP_GPU_LAYERS)`;
    throw new PtpError('failed_precondition', message, { field: 'PTP_DEVICE' });
  }
  if (!isHuggingFaceFolder(dir)) return 'onnx';
  const message = `PTP_ENGINE must be set to the address of an engine, because \`${dir}\` is a Hugging Face folder`;
  throw new PtpError('failed_precondition', message, { field: 'PTP_ENGINE' });
}

/** Opens a model's target. @throws PtpError `failed_precondition` if the model is missing or damaged */
export async function openTargetEngine(options: EngineOptions): Promise<TargetEngine> {
  return (await engines[engineOf(options)]()).openTargetEngine(options);
}

/**
 * Opens a folder's drafter.
 *
 * @throws PtpError `failed_precondition` if the model is missing or damaged, or if the folder contains only a target
 */
export async function openDraftEngine(options: EngineOptions): Promise<DraftEngine> {
  return (await engines[engineOf(options)]()).openDraftEngine(options);
}

/**
 * Opens a model that drafts for the target of another model. A whole model drafts token by token. If the target is a
 * GGUF file or a Hugging Face folder, the drafter of a model folder with the same tokens can draft for it too.
 *
 * @param options options of the draft model
 * @param targetPath path of the target's folder or GGUF file
 * @param setting name of the setting that chose the draft model, for error messages
 * @throws PtpError `failed_precondition` if the model is missing, damaged or its tokens differ from the target's
 */
export async function openDraftModel(
  options: EngineOptions,
  targetPath: string,
  setting: string,
): Promise<DraftEngine> {
  const draft = { path: options.dir, manifest: await loadManifest(options.dir) };
  const target = { path: targetPath, manifest: await loadManifest(targetPath) };
  await checkDraftModel(draft, target, setting);
  if (target.manifest.engine !== 'onnx' && draft.manifest.drafter) return openDraftEngine(options);
  return new AutoregressiveDraftEngine(await openTargetEngine(options));
}
