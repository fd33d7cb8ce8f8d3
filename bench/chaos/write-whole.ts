import { renameSync, writeFileSync } from 'node:fs';

/** Replaces a file, so that another process reads either the old content or the new one. */
export function writeWhole(path: string, content: string): void {
  writeFileSync(`${path}.part`, content);
  renameSync(`${path}.part`, path);
}
