import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));
const python = process.env.PTP_PYTHON ?? join(root, 'training', '.venv', 'bin', 'python');

/** Reason why tests with GGUF files cannot run here. It is printed once. */
export const ggufMissing = await reasonToSkip();
if (ggufMissing) process.stderr.write(`tests with GGUF files skipped: ${ggufMissing}\n`);

async function reasonToSkip(): Promise<string | undefined> {
  if (!existsSync(python)) return 'no Python with ptp-train (PTP_PYTHON)';
  return import('node-llama-cpp').then(
    () => undefined,
    () => 'node-llama-cpp is not installed',
  );
}

/** Returns the target of models/default in float32. */
export function defaultGguf(): string {
  const source = join(root, 'models', 'default');
  return made('ptp-default.gguf', (out) =>
    run(['-m', 'ptp_train', 'export', '--to', 'gguf', '--from', source, '--out', out]),
  );
}

/** Returns a folder with the files that write_ggufs.py lists, such as `default.q8_0.gguf` and `gemma3.f16.gguf`. */
export function ggufFolder(): string {
  return made('ptp-ggufs', (out) => {
    mkdirSync(out);
    run([WRITER, out]);
  });
}

const WRITER = join(root, 'test', 'fixtures', 'write_ggufs.py');

function run(args: readonly string[]): void {
  const path = ['src', 'tests'].map((folder) => join(root, 'training', folder)).join(delimiter);
  execFileSync(python, args, { env: { ...process.env, PYTHONPATH: path } });
}

/**
 * Returns the path of the output of `write`. The output is made once for all test files, because loading torch takes
 * seconds. Its name has a hash of everything that it depends on.
 */
function made(name: string, write: (out: string) => void): string {
  const code = join(root, 'training', 'src', 'ptp_train', 'export');
  const sources = readdirSync(code).filter((file) => file.endsWith('.py'));
  const hash = createHash('sha256').update(readFileSync(join(root, 'models', 'default', 'manifest.json')));
  for (const file of [...sources.sort().map((file) => join(code, file)), WRITER]) hash.update(readFileSync(file));
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
