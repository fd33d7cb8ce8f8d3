import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../', import.meta.url));
const python = process.env.PTP_PYTHON ?? join(root, 'training', '.venv', 'bin', 'python');

/** Reason why tests with GGUF files cannot run here; printed once. */
export const ggufMissing = await reasonToSkip();
if (ggufMissing) process.stderr.write(`tests with GGUF files skipped: ${ggufMissing}\n`);

async function reasonToSkip(): Promise<string | undefined> {
  if (!existsSync(python)) return 'no Python with ptp-train (PTP_PYTHON)';
  return import('node-llama-cpp').then(
    () => undefined,
    () => 'node-llama-cpp is not installed',
  );
}

/**
 * The target of models/default as a GGUF file. Made once for all test files, since loading torch takes seconds; the
 * name has a hash of everything that the file depends on.
 */
export function defaultGguf(): string {
  const source = join(root, 'models', 'default');
  const code = join(root, 'training', 'src', 'ptp_train', 'export');
  const hash = createHash('sha256').update(readFileSync(join(source, 'manifest.json')));
  for (const name of readdirSync(code).sort()) if (name.endsWith('.py')) hash.update(readFileSync(join(code, name)));
  const file = join(tmpdir(), `ptp-default-${hash.digest('hex').slice(0, 16)}.gguf`);
  if (existsSync(file)) return file;
  // Other test files may be at it too.
  const partial = `${file}.${process.pid}`;
  execFileSync(python, ['-m', 'ptp_train', 'export', '--to', 'gguf', '--from', source, '--out', partial]);
  renameSync(partial, file);
  return file;
}
