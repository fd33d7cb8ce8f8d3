import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { checkSpace } from './disk.ts';
import { downloadFile, missingBytes } from './download.ts';
import { type HubConfig, hubName, repoDir } from './hub-config.ts';
import { type CachedModel, cachedModel, cachedModels, type ModelFormat, safetensorsModel } from './model-cache.ts';
import { ModelError } from './model-error.ts';
import type { ModelName } from './model-name.ts';
import { formatBytes, ProgressLine, type ProgressStream } from './progress.ts';
import { type HubFile, openRepository, type Repository } from './repository.ts';
import { chooseVariant, variantsOf } from './variants.ts';

/**
 * Finds a model in the cache, or else downloads it. A cached model needs no network.
 *
 * @param out stream that receives the size, the licence and the progress of a download
 * @throws ModelError if there is no such model, or it cannot be downloaded
 */
export async function fetchModel(
  config: HubConfig,
  name: ModelName,
  out: ProgressStream,
  format: ModelFormat = 'any',
): Promise<CachedModel> {
  return (await cachedModel(config, name.repo, name.selector, format)) ?? pullModel(config, name, out, format);
}

/** Downloads the missing files of the newest version of a model on the hub. Otherwise the same as `fetchModel`. */
export async function pullModel(
  config: HubConfig,
  name: ModelName,
  out: ProgressStream,
  format: ModelFormat = 'any',
): Promise<CachedModel> {
  if (config.offline) throw await offlineError(config, name);
  const repository = await openRepository(config, name.repo);
  const files = filesToGet(repository, name.selector, format);
  const missing = await Promise.all(files.map((file) => missingBytes(config, repository, file)));
  const left = missing.reduce((sum, bytes) => sum + bytes, 0);
  const total = files.reduce((sum, { size }) => sum + size, 0);
  const progress = left > 0 ? new ProgressLine(out, total, total - left) : undefined;
  if (progress) {
    const what = files.length === 1 ? files[0]?.path : `${files.length} files`;
    out.write(`${name.repo}: ${what}, ${formatBytes(total)}, licence: ${repository.licence}\n`);
    await checkSpace(config.cacheDir, left, 'the download');
    out.write(`downloading ${formatBytes(left)} from ${hubName(config)} to ${config.cacheDir}\n`);
  }
  for (const file of files) await downloadFile(config, repository, file, (bytes) => progress?.add(bytes));
  progress?.end();
  const refs = join(repoDir(config, name.repo), 'refs');
  await mkdir(refs, { recursive: true });
  await writeFile(join(refs, 'main'), repository.commit);
  const first = files[0]?.path ?? '';
  const selector = first.endsWith('.gguf') ? first : undefined;
  return (await cachedModel(config, name.repo, selector, format)) as CachedModel;
}

async function offlineError(config: HubConfig, { repo, selector }: ModelName): Promise<ModelError> {
  const name = selector ? `${repo}:${selector}` : repo;
  const models = (await cachedModels(config))
    .map((model) => model.name)
    .filter((other) => other.split(':')[0] === repo);
  const others = models.length > 0 ? `, which has ${models.join(', ')}` : '';
  return new ModelError(`\`${name}\` is not in ${config.cacheDir}${others}: unset HF_HUB_OFFLINE to download it`);
}

/** Returns the files of a GGUF model if there is one and `format` allows it, otherwise those of a safetensors model. */
function filesToGet(
  { name, files }: Repository,
  selector: string | undefined,
  format: ModelFormat,
): readonly HubFile[] {
  const variants = format === 'any' ? variantsOf(files) : [];
  if (variants.length > 0) return chooseVariant(variants, name, selector).files;
  const model = safetensorsModel(files, format);
  if (selector === undefined && model.length > 0) return model;
  if (format !== 'any') {
    const problem = 'must have config.json and .safetensors files';
    throw new ModelError(`\`${name}\` ${problem}: look for the repository of the original weights`);
  }
  const problem = selector === undefined ? 'has neither .gguf nor .safetensors files' : 'has no .gguf files';
  throw new ModelError(`\`${name}\` ${problem}: look for a repository with a name that ends in -GGUF`);
}
