import { readdir, readFile, realpath, rm, stat } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { type HubConfig, repoDir } from './hub-config.ts';
import { ModelError } from './model-error.ts';
import { parseModelName } from './model-name.ts';
import { complete, fittingVariants, type ModelFile, selectorOf, type Variant, variantsOf } from './variants.ts';

/** A model on this machine. */
export interface CachedModel {
  /** Name that `--model` accepts. */
  readonly name: string;
  readonly quantisation: string | undefined;
  readonly bytes: number;
  /** Path of the GGUF file (or of its first part, if it is split), or of the Hugging Face folder. */
  readonly path: string;
  /** Paths of all files of the model. */
  readonly files: readonly string[];
}

/** A file of a snapshot, with its path inside the snapshot and its path on this machine. */
interface CachedFile extends ModelFile {
  readonly at: string;
}

/**
 * Kinds of model to look for: any, in which case a GGUF file comes first, or only a Hugging Face folder, with or without
 * its weights.
 */
export type ModelFormat = 'any' | 'safetensors' | 'tokenizer';

/** Files of a Hugging Face folder that are needed to run or convert it. */
const SAFETENSORS =
  /^(model.*\.safetensors|(config|generation_config|tokenizer.*|special_tokens_map|model\.safetensors\.index)\.json|chat_template\.jinja)$/;

const WEIGHTS = /\.safetensors$/;

/**
 * Returns the files of a repository that make up its safetensors model, or none if it has no such model.
 *
 * @param format `tokenizer` to leave out the weights
 */
export function safetensorsModel<File extends ModelFile>(files: readonly File[], format: ModelFormat = 'any'): File[] {
  const found = complete(files.filter(({ path }) => SAFETENSORS.test(path)));
  const has = (name: RegExp) => found.some(({ path }) => name.test(path));
  if (format === 'tokenizer') return has(/^config\.json$/) ? found.filter(({ path }) => !WEIGHTS.test(path)) : [];
  // The weights come last, so that a folder with weights is complete.
  return has(/^config\.json$/) && has(WEIGHTS) ? found.sort((a, b) => a.size - b.size) : [];
}

/**
 * Returns the downloaded model that a name stands for. A name without a selector is resolved among the downloaded files
 * by the same rules as among the files on the hub.
 *
 * @returns undefined if there is no such model, or if the name could mean several
 */
export async function cachedModel(
  config: HubConfig,
  repo: string,
  selector?: string,
  format: ModelFormat = 'any',
): Promise<CachedModel | undefined> {
  for (const { dir, files } of await snapshotsOf(repoDir(config, repo))) {
    const variants = format === 'any' ? variantsOf(files) : [];
    const fitting = fittingVariants(variants, selector);
    if (fitting.length === 1 && fitting[0]) return describe(repo, fitting[0], variants);
    if (fitting.length > 1) return undefined;
    if (selector === undefined && safetensorsModel(files, format).length > 0) {
      return describeFolder(repo, dir, files, format);
    }
  }
  return undefined;
}

/** Returns all models on this machine: first the models in the hub's cache, then the converted models. */
export async function cachedModels(config: HubConfig): Promise<CachedModel[]> {
  const latest = new Map<string, CachedModel>();
  for (const model of await modelsOfAllCommits(config)) if (!latest.has(model.name)) latest.set(model.name, model);
  return [...latest.values()];
}

/**
 * Removes a model, or everything that was downloaded from a repository if the name is a repository's.
 *
 * @returns the number of bytes freed
 * @throws ModelError that lists the existing models if there is no such model
 */
export async function removeModel(config: HubConfig, name: string): Promise<number> {
  const dir = repoDir(config, name);
  if (parseModelName(name)?.repo === name && (await list(dir)).length > 0) {
    const bytes = sizeOf(await filesIn(join(dir, 'blobs')));
    await rm(dir, { recursive: true });
    return bytes;
  }
  const models = await modelsOfAllCommits(config);
  const files = models.filter((model) => model.name === name).flatMap((model) => model.files);
  if (files.length === 0) {
    const names = new Set(models.map((model) => model.name));
    const others = names.size > 0 ? `there are ${[...names].join(', ')}` : 'there are none';
    throw new ModelError(`no model \`${name}\` on this machine: ${others}`);
  }
  const blobs = new Set(await Promise.all(files.map((file) => realpath(file))));
  let bytes = 0;
  for (const blob of blobs) bytes += (await stat(blob)).size;
  for (const path of [...files, ...blobs]) await rm(path, { force: true });
  return bytes;
}

/** Returns the models of all commits. Models of the latest commit come first. */
async function modelsOfAllCommits({ cacheDir, convertedDir }: HubConfig): Promise<CachedModel[]> {
  const models: CachedModel[] = [];
  for (const folder of await list(cacheDir)) {
    if (!folder.startsWith('models--')) continue;
    const repo = folder.slice('models--'.length).replace('--', '/');
    for (const { dir, files } of await snapshotsOf(join(cacheDir, folder))) {
      const variants = variantsOf(files);
      models.push(...variants.map((variant) => describe(repo, variant, variants)));
      if (safetensorsModel(files).length > 0) models.push(describeFolder(repo, dir, files));
    }
  }
  for (const { quantisation, bytes, files } of variantsOf(await filesIn(convertedDir))) {
    const path = files[0].at;
    models.push({ name: path, quantisation, bytes, path, files: files.map(({ at }) => at) });
  }
  return models;
}

function describe(repo: string, variant: Variant<CachedFile>, variants: readonly Variant[]): CachedModel {
  const { quantisation, bytes, files } = variant;
  const name = `${repo}:${selectorOf(variant, variants)}`;
  return { name, quantisation, bytes, path: files[0].at, files: files.map(({ at }) => at) };
}

function describeFolder(
  repo: string,
  dir: string,
  files: readonly CachedFile[],
  format: ModelFormat = 'any',
): CachedModel {
  const own = safetensorsModel(files, format);
  return { name: repo, quantisation: undefined, bytes: sizeOf(own), path: dir, files: own.map(({ at }) => at) };
}

/** Returns the snapshots in a repository's folder. The snapshot of the branch `main` comes first. */
async function snapshotsOf(dir: string): Promise<{ dir: string; files: CachedFile[] }[]> {
  const main = await readFile(join(dir, 'refs', 'main'), 'utf8').catch(() => '');
  const commits = (await list(join(dir, 'snapshots'))).sort((a, b) => Number(b === main) - Number(a === main));
  const paths = commits.map((commit) => join(dir, 'snapshots', commit));
  return Promise.all(paths.map(async (path) => ({ dir: path, files: await filesIn(path) })));
}

async function filesIn(dir: string): Promise<CachedFile[]> {
  const found = await Promise.all(
    (await list(dir, true)).map(async (path) => {
      const at = join(dir, path);
      const target = await stat(at).catch(() => undefined); // A link may lead nowhere.
      return target?.isFile() ? [{ path: relative(dir, at).split(sep).join('/'), size: target.size, at }] : [];
    }),
  );
  return found.flat();
}

function sizeOf(files: readonly ModelFile[]): number {
  return files.reduce((sum, { size }) => sum + size, 0);
}

async function list(dir: string, recursive = false): Promise<string[]> {
  return (await readdir(dir, { recursive }).catch(() => [])).sort();
}
