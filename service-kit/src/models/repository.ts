import { type HubConfig, hubName } from './hub-config.ts';
import { ModelError } from './model-error.ts';
import type { ModelFile } from './variants.ts';

/** A file of a repository on the hub. */
export interface HubFile extends ModelFile {
  /** Git's SHA-1 of the file, or of the pointer to it if the file is in large file storage. */
  readonly gitHash: string;
  /** SHA-256 of a file in large file storage. */
  readonly sha256: string | undefined;
}

/** A repository at one commit. */
export interface Repository {
  readonly name: string;
  readonly commit: string;
  readonly licence: string;
  /** True if a user has to accept terms before downloading. */
  readonly gated: boolean;
  readonly files: readonly HubFile[];
}

/**
 * Reads the list of a repository's files.
 *
 * @throws ModelError if the hub cannot be reached or does not show the repository
 */
export async function openRepository(config: HubConfig, name: string): Promise<Repository> {
  const access = { hubUrl: config.endpoint, ...(config.token && { accessToken: config.token }) };
  // Imported here, because a start with a cached model needs no hub.
  const { HubApiError, listFiles, modelInfo } = await import('@huggingface/hub');
  let gated = false;
  try {
    const info = await modelInfo({ ...access, name, revision: 'main', additionalFields: ['sha', 'cardData'] });
    gated = Boolean(info.gated);
    const files: HubFile[] = [];
    for await (const entry of listFiles({ ...access, repo: name, revision: info.sha, recursive: true })) {
      const { type, path, size, oid = '', lfs } = entry;
      if (type === 'file') files.push({ path, size: lfs?.size ?? size, gitHash: oid, sha256: lfs?.oid });
    }
    const licence = [info.cardData?.license ?? 'not stated'].flat().join(', ');
    return { name, commit: info.sha, licence, gated, files };
  } catch (error) {
    if (error instanceof HubApiError) throw statusError(config, name, error.statusCode, gated);
    throw networkError(config, name, error);
  }
}

/** Returns an error that explains a status other than 2xx for a repository. */
export function statusError(config: HubConfig, repo: string, status: number, gated: boolean): ModelError {
  const { endpoint, token } = config;
  const hub = hubName(config);
  if (gated && (status === 401 || status === 403)) {
    const terms = `accept its terms at ${endpoint}/${repo}`;
    return new ModelError(
      token
        ? `\`${repo}\` is gated, and the account of HF_TOKEN has no access: ${terms}, then run this again`
        : `\`${repo}\` is gated: ${terms}, then set HF_TOKEN to a token of your account`,
    );
  }
  if (status === 401 && token) {
    return new ModelError(`${hub} rejects the token in HF_TOKEN: create one at ${endpoint}/settings/tokens`);
  }
  if (status === 401 || status === 403 || status === 404) {
    const access = token
      ? 'make sure that the account of HF_TOKEN may read the repository'
      : 'set HF_TOKEN if it is private';
    return new ModelError(`${hub} has no model \`${repo}\`: check the name, or ${access}`);
  }
  return new ModelError(`${hub} answered HTTP ${status} for \`${repo}\`: try again later`);
}

/** Returns an error saying that the hub cannot be reached. */
export function networkError(config: HubConfig, repo: string, error: unknown): ModelError {
  const { cause, message } = error as Error & { cause?: { code?: string; message?: string } };
  const reason = cause?.code ?? cause?.message ?? message;
  const advice = 'check the network, or set HF_ENDPOINT to a mirror';
  return new ModelError(`cannot download \`${repo}\` from ${hubName(config)} (${reason}): ${advice}`, { cause: error });
}
