/** Finds the files of the models that a user names. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { isGguf, loadManifest, type Manifest } from '@ptp/protocol/manifest';
import { fetchModel } from '@ptp/service-kit/models/fetch-model';
import { type HubConfig, hubConfig } from '@ptp/service-kit/models/hub-config';
import { parseModelName } from '@ptp/service-kit/models/model-name';
import { settings } from '@ptp/service-kit/settings';
import { gatewaySettings } from '../gateway/src/settings.ts';
import { convertFolder } from './start-convert.ts';
import { installLlama } from './start-llama.ts';
import { root, StartError } from './supervisor.ts';

/** A model whose files are on this machine. */
export interface ReadyModel {
  /** Path of a model folder or a GGUF file. */
  readonly path: string;
  readonly manifest: Manifest;
}

/** The models to serve. */
export interface Models {
  readonly target: ReadyModel;
  /** Model in PTP_DRAFT_MODEL. */
  readonly draftModel: ReadyModel | undefined;
}

/**
 * Downloads and converts the models if necessary, and sets PTP_MODEL and PTP_DRAFT_MODEL to the paths.
 *
 * @throws StartError, ModelError or PtpError if a model is missing or cannot be downloaded or converted
 */
export async function prepareModels(env: NodeJS.ProcessEnv): Promise<Models> {
  const { model, draftModel } = gatewaySettings;
  const values = settings({ model, draftModel }, env);
  const config = await hubConfig(env);
  const target = await prepare(values.model, '--model', config);
  const drafting = values.draftModel === '' ? undefined : await prepare(values.draftModel, '--draft-model', config);
  env[model.name] = target;
  if (drafting) env[draftModel.name] = drafting;
  if ([target, drafting].some((path) => path && isGguf(path))) await installLlama(config.ownCacheDir);
  const contextLength = settings({ contextLength: gatewaySettings.contextLength }, env).contextLength;
  const ready = async (path: string) => ({ path, manifest: await loadManifest(path, contextLength) });
  return { target: await ready(target), draftModel: drafting ? await ready(drafting) : undefined };
}

/** Returns the model folder or GGUF file for the user's input, which is a path or a name on the hub. */
async function prepare(text: string, flag: string, config: HubConfig): Promise<string> {
  const path = resolve(root, text);
  if (existsSync(path)) return prepareLocal(path, basename(path), config);
  const name = parseModelName(text);
  if (!name) {
    const kinds =
      'a folder exported by ptp-train, a .gguf file, a Hugging Face model folder, or a name on huggingface.co: org/repo[:quantisation or file]';
    throw new StartError(`there is no file or folder ${text}: set ${flag} to ${kinds}`);
  }
  const fetched = await fetchModel(config, name, process.stderr);
  return prepareLocal(fetched.path, name.repo, config);
}

async function prepareLocal(path: string, name: string, { convertedDir }: HubConfig): Promise<string> {
  if (!statSync(path).isDirectory()) {
    if (isGguf(path)) return path;
    throw new StartError(`${path} is not a model: name a .gguf file or the folder of a model`);
  }
  const files = readdirSync(path);
  if (files.includes('manifest.json')) return path;
  const ggufs = files.filter((file) => isGguf(file) && !/-(?!00001)\d{5}-of-\d{5}\./.test(file));
  if (ggufs.length === 1) return join(path, ggufs[0] as string);
  if (ggufs.length > 1) throw new StartError(`${path} contains several models: name one of ${ggufs.join(', ')}`);
  const isHuggingFace = files.includes('config.json') && files.some((file) => file.endsWith('.safetensors'));
  if (isHuggingFace) return convertFolder(path, name, convertedDir);
  throw new StartError(
    `${path} contains no model: it must have manifest.json, a .gguf file, or config.json and .safetensors files`,
  );
}
