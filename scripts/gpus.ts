import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';

/**
 * Returns true if processes here can use an NVIDIA GPU. The driver's folder in /proc would not be enough: every container
 * on a machine with a GPU has it.
 *
 * @param device file of the first GPU, which decides if nvidia-smi is not installed
 */
export function hasNvidiaGpu(env: NodeJS.ProcessEnv = process.env, device = '/dev/nvidia0'): boolean {
  const { status, error } = spawnSync('nvidia-smi', ['-L'], { env, stdio: 'ignore' });
  return error ? existsSync(device) : status === 0;
}

/**
 * Returns the memory in bytes of each NVIDIA GPU that a process started with `env` would see, or an empty array if
 * nvidia-smi cannot say.
 */
export function gpuMemory(env: NodeJS.ProcessEnv): number[] {
  const options = ['--query-gpu=memory.total', '--format=csv,noheader,nounits'];
  const { status, stdout } = spawnSync('nvidia-smi', options, { env, encoding: 'utf8' });
  if (status !== 0) return [];
  const sizes = stdout
    .trim()
    .split('\n')
    .map((line) => Number(line) * 2 ** 20);
  return visibleGpus(env)?.map((gpu) => sizes[Number(gpu)] ?? sizes[0] ?? 0) ?? sizes;
}

/** Returns the GPUs that CUDA_VISIBLE_DEVICES names, or undefined if it is not set. */
export function visibleGpus({ CUDA_VISIBLE_DEVICES: given }: NodeJS.ProcessEnv): string[] | undefined {
  return given === undefined ? undefined : given.split(',').filter((gpu) => gpu !== '');
}
