import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ownCaches, userCaches } from '@ptp/protocol/cached-json';
import { ModelError } from './model-error.ts';

/**
 * Locations from which models are downloaded and at which they are kept. All tools for the Hugging Face hub read the
 * same variables.
 */
export interface HubConfig {
  /** Address of the hub, without a final slash. */
  readonly endpoint: string;
  /** Folder of the standard cache, which other tools share. */
  readonly cacheDir: string;
  readonly token: string | undefined;
  /** True if the network must not be used. */
  readonly offline: boolean;
  /** Folder of this project's own caches. */
  readonly ownCacheDir: string;
  /** Folder of the models that this project has converted. */
  readonly convertedDir: string;
}

/**
 * Reads HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_OFFLINE and XDG_CACHE_HOME.
 * https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
 *
 * @throws ModelError if the token does not have the form of the hub's tokens, or the user has no home folder
 */
export async function hubConfig(env: NodeJS.ProcessEnv): Promise<HubConfig> {
  const caches = userCaches(env);
  if (!caches) throw new ModelError('this user has no home folder: set XDG_CACHE_HOME to a folder for models');
  const home = env.HF_HOME || join(caches, 'huggingface');
  const token = env.HF_TOKEN || (await storedToken(env.HF_TOKEN_PATH || join(home, 'token')));
  if (token && !token.startsWith('hf_')) {
    throw new ModelError('the token in HF_TOKEN must start with `hf_`: copy it again, or unset HF_TOKEN');
  }
  return {
    endpoint: (env.HF_ENDPOINT || 'https://huggingface.co').replace(/\/+$/, ''),
    cacheDir: env.HF_HUB_CACHE || env.HUGGINGFACE_HUB_CACHE || join(home, 'hub'),
    token: token || undefined,
    offline: /^(1|true|yes|on)$/i.test(env.HF_HUB_OFFLINE ?? ''),
    ownCacheDir: ownCaches(caches),
    convertedDir: join(ownCaches(caches), 'converted'),
  };
}

async function storedToken(file: string): Promise<string> {
  return (await readFile(file, 'utf8').catch(() => '')).trim();
}

/** Returns the folder of a repository in the cache. */
export function repoDir({ cacheDir }: HubConfig, repo: string): string {
  return join(cacheDir, `models--${repo.replaceAll('/', '--')}`);
}

/** Returns the name of the hub for messages, such as huggingface.co. */
export function hubName({ endpoint }: HubConfig): string {
  return endpoint.replace(/^https?:\/\//, '');
}
