/** Converts a Hugging Face model to GGUF with the project's Python tool. */
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { checkSpace } from '@ptp/service-kit/models/disk';
import { formatBytes } from '@ptp/service-kit/models/progress';
import { converterSteps, venvPython } from './start-python.ts';
import { StartError, say } from './supervisor.ts';
import { weightBytes, weightFiles } from './weights.ts';

/**
 * Number of bytes of disk space that the conversion may need per byte of the folder's weights. The weights are mostly
 * 16-bit, and the conversion writes a checkpoint in their format and a float16 GGUF. The rest is a margin.
 */
const SPACE = 3;

/**
 * Converts a Hugging Face folder once.
 *
 * @param name name of the model for clients
 * @param convertedDir folder for the results
 * @returns the path of the GGUF
 * @throws StartError if there is no Python with ptp-train, or it cannot convert the model
 */
export async function convertFolder(folder: string, name: string, convertedDir: string): Promise<string> {
  const out = join(convertedDir, `${name.replaceAll('/', '--')}-${fingerprint(folder)}-f16.gguf`);
  if (existsSync(out)) return out;
  const python = findPython(folder);
  const weights = weightBytes(folder);
  await mkdir(convertedDir, { recursive: true });
  await checkSpace(convertedDir, SPACE * weights, 'converting the model');
  const work = await mkdtemp(join(convertedDir, '.work-'));
  try {
    say(`converting ${folder} (${formatBytes(weights)}) to GGUF, once; step 1 of 2: reading the weights`);
    await train(python, folder, 'import-hf', '--work', work, '--from', folder);
    say('step 2 of 2: writing the GGUF');
    const part = join(work, 'model.gguf');
    const format = ['--to', 'gguf', '--type', 'f16', '--id', basename(name)];
    const sources = ['--target', join(work, 'target.pt'), '--tokens', join(work, 'tokens')];
    await train(python, folder, 'export', ...format, ...sources, '--out', part);
    await rename(part, out);
    return out;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Returns a hash that changes when the folder's weights do. */
function fingerprint(folder: string): string {
  const facts = weightFiles(folder).map((file) => [basename(file), statSync(file).size, statSync(file).mtimeMs]);
  return createHash('sha256')
    .update(JSON.stringify([folder, facts]))
    .digest('hex')
    .slice(0, 8);
}

/** Returns the Python named by PTP_PYTHON, or else the one in the environment of training/. */
function findPython(folder: string): string {
  const python = process.env.PTP_PYTHON || venvPython(process.env);
  if (spawnSync(python, ['-c', 'import ptp_train, gguf'], { stdio: 'ignore' }).status === 0) return python;
  throw new StartError(
    `${folder} is a Hugging Face model, which must be converted to GGUF with Python: run ${converterSteps(process.env)}, then start again, or name a GGUF file`,
  );
}

async function train(python: string, folder: string, ...args: string[]): Promise<void> {
  const child = spawn(python, ['-m', 'ptp_train', ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  child.stderr.pipe(process.stderr, { end: false });
  const [errors, [code]] = await Promise.all([text(child.stderr), once(child, 'close')]);
  if (code === 0) return;
  const reason = errors.trim().split('\n').at(-1) || `status ${code}`;
  throw new StartError(`${folder} cannot be converted: ${reason}`);
}
