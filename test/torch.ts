import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkHealth } from '@ptp/protocol/health';
import { made, python, pythonEnv, root, runPython } from './python.ts';

const WRITER = join(root, 'test', 'fixtures', 'write_torch.py');
const RANDOM_MODELS = join(root, 'training', 'tests', 'random_hf.py');

/** Reason why tests with PyTorch cannot run here. It is printed once. */
export const torchMissing = reasonToSkip();
if (torchMissing) process.stderr.write(`tests with PyTorch skipped: ${torchMissing}\n`);

function reasonToSkip(): string | undefined {
  if (!existsSync(python)) return 'no Python with ptp-train (PTP_PYTHON)';
  const script = 'import importlib.util as u; exit(not all(map(u.find_spec, ["torch", "transformers", "grpc"])))';
  const { status } = spawnSync(python, ['-c', script]);
  return status === 0 ? undefined : 'Python lacks torch, transformers or grpcio';
}

/** Returns a folder with the files that write_torch.py lists. */
export function torchModels(): string {
  const models = join(root, 'test', 'models');
  const manifests = ['tiny', 'tiny-feature'].map((name) => join(models, name, 'manifest.json'));
  return made('ptp-torch', [WRITER, RANDOM_MODELS, ...manifests], (out) => {
    mkdirSync(out);
    runPython([WRITER, out]);
  });
}

/** A ptp-engine that runs. */
export interface Worker {
  readonly address: string;
  readonly child: ChildProcess;
  stop(): Promise<void>;
}

/** Starts ptp-engine. @param words role, model and options */
export async function startWorker(...words: string[]): Promise<Worker> {
  const folder = mkdtempSync(join(tmpdir(), 'w-'));
  const address = `unix:${join(folder, 'engine.sock')}`;
  const args = ['-m', 'ptp_engine', ...words, '--listen', address, '--exit-with-stdin'];
  const child = spawn(python, args, { env: pythonEnv, stdio: ['pipe', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += chunk;
    });
  }
  const ended = once(child, 'close');
  const isReady = () => checkHealth(address, undefined, { deadlineMs: 1_000 }).catch(() => undefined);
  while ((await isReady()) !== 'SERVING') {
    if (child.exitCode !== null) throw new Error(`ptp-engine ${words.join(' ')} has ended: ${output}`);
    await sleep(100);
  }
  const stop = async () => {
    child.kill('SIGKILL'); // PyTorch takes seconds to end by itself.
    await ended;
    rmSync(folder, { recursive: true, force: true });
  };
  return { address, child, stop };
}
