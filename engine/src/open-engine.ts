import { isGguf, loadManifest } from '@ptp/protocol/manifest';
import { AutoregressiveDraftEngine } from './draft-model.ts';
import { checkDraftModel } from './draft-vocabulary.ts';
import type { DraftEngine, EngineOptions, TargetEngine } from './types.ts';

/** What an engine's folder provides. Both throw PtpError `failed_precondition` if the model is missing or damaged. */
interface EngineModule {
  openTargetEngine(options: EngineOptions): Promise<TargetEngine>;
  openDraftEngine(options: EngineOptions): Promise<DraftEngine>;
}

/**
 * All engines. Adding one takes a folder next to `onnx/` and a line here. They are imported on demand, so that a
 * process loads no native runtime but the one it uses.
 */
const engines = {
  onnx: () => import('./onnx/engine.ts'),
  'llama-cpp': () => import('./llama-cpp/engine.ts'),
} satisfies Record<string, () => Promise<EngineModule>>;

export type EngineName = keyof typeof engines;

/** The engine that runs a model: llama.cpp for a GGUF file, otherwise ONNX Runtime for a model folder. */
export function engineOf(dir: string): EngineName {
  return isGguf(dir) ? 'llama-cpp' : 'onnx';
}

/** Opens a model's target. @throws PtpError `failed_precondition` if the model is missing or damaged */
export async function openTargetEngine(options: EngineOptions, name = engineOf(options.dir)): Promise<TargetEngine> {
  return (await engines[name]()).openTargetEngine(options);
}

/**
 * Opens a folder's drafter.
 *
 * @throws PtpError `failed_precondition` if the model is missing, damaged or a target alone
 */
export async function openDraftEngine(options: EngineOptions, name = engineOf(options.dir)): Promise<DraftEngine> {
  return (await engines[name]()).openDraftEngine(options);
}

/**
 * Opens a model as the drafter of another model's target: a whole model, which drafts token by token, or, for a GGUF
 * file, the drafter of a model folder with the same tokens.
 *
 * @param options of the draft model
 * @param targetPath the folder or GGUF file of the target that it drafts for
 * @param setting name of the setting that chose the draft model, for error messages
 * @throws PtpError `failed_precondition` if the model is missing, damaged or has other tokens than the target
 */
export async function openDraftModel(
  options: EngineOptions,
  targetPath: string,
  setting: string,
): Promise<DraftEngine> {
  const draft = { path: options.dir, manifest: await loadManifest(options.dir) };
  const target = { path: targetPath, manifest: await loadManifest(targetPath) };
  await checkDraftModel(draft, target, setting);
  if (isGguf(targetPath) && draft.manifest.drafter) return openDraftEngine(options);
  return new AutoregressiveDraftEngine(await openTargetEngine(options));
}
