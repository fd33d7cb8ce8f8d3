import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';

/** Returns the paths of the weights in a Hugging Face folder, sorted by name. */
export function weightFiles(folder: string): string[] {
  const names = readdirSync(folder).filter((name) => name.endsWith('.safetensors'));
  return names.sort().map((name) => join(folder, name));
}

/** Returns the size of a checkpoint, or of the weights in a Hugging Face folder. */
export function weightBytes(path: string): number {
  const files = statSync(path).isDirectory() ? weightFiles(path) : [path];
  return files.reduce((sum, file) => sum + statSync(file).size, 0);
}
