/** Finds the files of the models that a user names. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { isGguf, loadManifest, type Manifest } from '@ptp/protocol/manifest';
import { fetchModel } from '@ptp/service-kit/models/fetch-model';
import { type HubConfig, hubConfig } from '@ptp/service-kit/models/hub-config';
import type { ModelFormat } from '@ptp/service-kit/models/model-cache';
import { parseModelName } from '@ptp/service-kit/models/model-name';
import { settings } from '@ptp/service-kit/settings';
import { gatewaySettings } from '../gateway/src/settings.ts';
import { convertFolder } from './start-convert.ts';
import { TORCH } from './start-help.ts';
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

/** Text in errors about a model that does not exist. */
const KINDS =
  'a folder exported by ptp-train, a .gguf file, a Hugging Face model folder, or a name on huggingface.co: org/repo[:quantisation or file]';

/**
 * Downloads and converts the models if necessary, and sets PTP_MODEL and PTP_DRAFT_MODEL to the paths. Hugging Face
 * folders are converted unless there is an engine for them.
 *
 * @param engine value of --engine
 * @throws StartError, ModelError or PtpError if a model is missing or cannot be downloaded or converted
 */
export async function prepareModels(env: NodeJS.ProcessEnv, engine = ''): Promise<Models> {
  const { model, draftModel } = gatewaySettings;
  const values = settings({ model, draftModel }, env);
  const config = await hubConfig(env);
  const [weights, tokenizer] = engine === '' ? (['any', 'any'] as const) : (['safetensors', 'tokenizer'] as const);
  // An engine that is already running has its own copy of the target's weights.
  const target = await prepare(values.model, '--model', config, engine === TORCH ? weights : tokenizer);
  const drafting = values.draftModel && (await prepare(values.draftModel, '--draft-model', config, weights));
  env[model.name] = target;
  if (drafting) env[draftModel.name] = drafting;
  if ([target, drafting].some(isGguf)) await installLlama(config.ownCacheDir);
  const contextLength = settings({ contextLength: gatewaySettings.contextLength }, env).contextLength;
  const ready = async (path: string) => ({ path, manifest: await loadManifest(path, contextLength) });
  return { target: await ready(target), draftModel: drafting ? await ready(drafting) : undefined };
}

/**
 * Returns the model folder or GGUF file for the user's input, which is a path or a name on the hub.
 *
 * @param format files of a Hugging Face model that are needed; `any` if it is to be converted
 */
async function prepare(text: string, flag: string, config: HubConfig, format: ModelFormat): Promise<string> {
  const path = resolve(root, text);
  if (existsSync(path)) return prepareLocal(path, basename(path), config, format);
  const name = parseModelName(text);
  if (!name) throw new StartError(`there is no file or folder ${text}: set ${flag} to ${KINDS}`);
  // A quantisation or file name selects a GGUF file.
  const fetched = await fetchModel(config, name, process.stderr, name.selector ? 'any' : format);
  return prepareLocal(fetched.path, name.repo, config, format);
}

async function prepareLocal(
  path: string,
  name: string,
  { convertedDir }: HubConfig,
  format: ModelFormat,
): Promise<string> {
  if (!statSync(path).isDirectory()) {
    if (isGguf(path)) return path;
    throw new StartError(`${path} is not a model: name a .gguf file or the folder of a model`);
  }
  const files = readdirSync(path);
  if (files.includes('manifest.json')) return path;
  const hasWeights = files.some((file) => file.endsWith('.safetensors'));
  const isHuggingFace = files.includes('config.json') && (hasWeights || format === 'tokenizer');
  if (isHuggingFace && format !== 'any') return path;
  const ggufs = files.filter((file) => isGguf(file) && !/-(?!00001)\d{5}-of-\d{5}\./.test(file));
  if (ggufs.length === 1) return join(path, ggufs[0] as string);
  if (ggufs.length > 1) throw new StartError(`${path} contains several models: name one of ${ggufs.join(', ')}`);
  if (isHuggingFace) return convertFolder(path, name, convertedDir);
  throw new StartError(
    `${path} contains no model: it must have manifest.json, a .gguf file, or config.json and .safetensors files`,
  );
}
