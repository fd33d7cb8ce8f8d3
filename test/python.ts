import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../', import.meta.url));
/** Interpreter with ptp-train, which may be missing. */
export const python = process.env.PTP_PYTHON ?? join(root, 'training', '.venv', 'bin', 'python');
/** Environment in which it can import the project's code. */
export const pythonEnv: NodeJS.ProcessEnv = {
  ...process.env,
  PYTHONPATH: ['src', 'tests'].map((folder) => join(root, 'training', folder)).join(delimiter),
};

export function runPython(args: readonly string[]): void {
  execFileSync(python, args, { env: pythonEnv });
}

/**
 * Returns the path of the output of `write`. The output is made once for all test files, because loading torch takes
 * seconds. Its name has a hash of everything that it depends on: `sources`, and the code that exports models.
 */
export function made(name: string, sources: readonly string[], write: (out: string) => void): string {
  const code = join(root, 'training', 'src', 'ptp_train', 'export');
  const exporters = readdirSync(code).filter((file) => file.endsWith('.py'));
  const hash = createHash('sha256');
  for (const file of [...exporters.sort().map((file) => join(code, file)), ...sources]) hash.update(readFileSync(file));
  const path = join(tmpdir(), `${hash.digest('hex').slice(0, 16)}-${name}`);
  if (existsSync(path)) return path;
  // Other test files may write the same file.
  const partial = `${path}.${process.pid}`;
  write(partial);
  try {
    renameSync(partial, path);
  } catch {
    rmSync(partial, { recursive: true });
  }
  return path;
}
