import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';

const INDEX = 'model.safetensors.index.json';
const indexContent = z.object({ weight_map: z.record(z.string(), z.string()) });

/**
 * Returns the paths of the weights in a Hugging Face folder, sorted by name. Other files, such as
 * `consolidated.safetensors`, hold the same weights in another form.
 */
export function weightFiles(folder: string): string[] {
  const index = join(folder, INDEX);
  if (!existsSync(index)) return [join(folder, 'model.safetensors')].filter((file) => existsSync(file));
  const { weight_map } = indexContent.parse(JSON.parse(readFileSync(index, 'utf8')));
  return [...new Set(Object.values(weight_map))].sort().map((name) => join(folder, name));
}

/** Returns the size of a checkpoint, or of the weights in a Hugging Face folder. */
export function weightBytes(path: string): number {
  const files = statSync(path).isDirectory() ? weightFiles(path) : [path];
  return files.reduce((sum, file) => sum + statSync(file).size, 0);
}
