import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { made, python, root, runPython } from './python.ts';

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
  return made('ptp-default.gguf', [join(source, 'manifest.json')], (out) =>
    runPython(['-m', 'ptp_train', 'export', '--to', 'gguf', '--from', source, '--out', out]),
  );
}

/** Returns a folder with the files that write_ggufs.py lists, such as `default.q8_0.gguf` and `gemma3.f16.gguf`. */
export function ggufFolder(): string {
  return made('ptp-ggufs', [join(root, 'models', 'default', 'manifest.json'), WRITER], (out) => {
    mkdirSync(out);
    runPython([WRITER, out]);
  });
}

const WRITER = join(root, 'test', 'fixtures', 'write_ggufs.py');
