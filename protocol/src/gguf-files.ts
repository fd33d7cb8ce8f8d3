import { realpath, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { parseGgufShardFilename } from '@huggingface/gguf';
import { unusable } from './errors.ts';

/** Returns true if the path names a GGUF file, the format of llama.cpp. */
export function isGguf(path: string): boolean {
  return path.toLowerCase().endsWith('.gguf');
}

/**
 * Returns the paths of a model's files, and the model's name according to the paths. A split model has several files.
 *
 * @throws PtpError `failed_precondition` if the path names a later part
 */
export function ggufFiles(path: string): { readonly name: string; readonly paths: readonly string[] } {
  const part = parseGgufShardFilename(basename(path));
  if (!part) return { name: basename(path).slice(0, -'.gguf'.length), paths: [path] };
  const { prefix, shard, total } = part;
  const nameOf = (n: number) => `${prefix}-${String(n).padStart(5, '0')}-of-${total}.gguf`;
  if (Number(shard) !== 1)
    throw unusable(path, `is part ${Number(shard)} of a model: name its first part, ${nameOf(1)}`);
  return { name: prefix, paths: Array.from({ length: Number(total) }, (_, i) => join(dirname(path), nameOf(i + 1))) };
}

/**
 * Identifies the content of a model's files by their paths, sizes and times, because hashing gigabytes takes as long as
 * loading them. Every change of a file sets its `ctime`, which programs cannot set to a chosen time.
 *
 * @throws PtpError `failed_precondition` if a file is missing
 */
export async function ggufIdentity(path: string): Promise<readonly (readonly string[])[]> {
  return Promise.all(
    ggufFiles(path).paths.map(async (file) => {
      const [real, { size, mtimeNs, ctimeNs }] = await Promise.all([
        realpath(file),
        stat(file, { bigint: true }),
      ]).catch((cause: unknown) => {
        throw unusable(path, file === path ? 'cannot be read' : `needs ${basename(file)} in the same folder`, cause);
      });
      return [real, `${size}`, `${mtimeNs}`, `${ctimeNs}`];
    }),
  );
}
