/** Finds, or installs when it is first needed, a Python that can run ptp-engine. */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { copyFile, cp, mkdir } from 'node:fs/promises';
import { basename, delimiter, join } from 'node:path';
import { ownCaches, userCaches } from '@ptp/protocol/cached-json';
import { checkSpace } from '@ptp/service-kit/models/disk';
import { hasNvidiaGpu } from './gpus.ts';
import { root, StartError, say } from './supervisor.ts';

const TRAINING = join(root, 'training');
/** Packages of the extra `serve` that ptp-engine imports. */
const MODULES = ['torch', 'transformers', 'grpc', 'google.protobuf', 'tokenizers', 'safetensors'];
/** Index of PyTorch's packages without CUDA, whose libraries take several GB. PyPI's packages for Linux have CUDA. */
const CPU_INDEX = 'https://download.pytorch.org/whl/cpu';
/** Sizes of an installation in GB. */
const SIZE = { cuda: 8, cpu: 1.5 };

/** An interpreter and the environment in which it can import ptp_engine. */
export interface Python {
  readonly path: string;
  readonly env: NodeJS.ProcessEnv;
}

/**
 * Returns the Python named by PTP_PYTHON, or else the one of `venvPython`, which is made and updated if necessary.
 *
 * @param training folder of the Python package
 * @throws StartError if it lacks packages, or they cannot be installed
 */
export async function enginePython(env: NodeJS.ProcessEnv, training = TRAINING): Promise<Python> {
  const paths = [join(training, 'src'), env.PYTHONPATH].filter(Boolean).join(delimiter);
  const python = { path: env.PTP_PYTHON || venvPython(env, training), env: { PYTHONPATH: paths } };
  if (!env.PTP_PYTHON) await updateVenv(env, training, python.path);
  const missing = missingModule(python);
  if (missing === undefined) return python;
  const action = `run \`${python.path} -m pip install -e 'training[serve]'\``;
  throw new StartError(`--engine torch needs the Python package ${missing}, which ${python.path} lacks: ${action}`);
}

/** Returns the path of the Python in the environment of training/, which may be missing. */
export function venvPython(env: NodeJS.ProcessEnv, training = TRAINING): string {
  return join(
    venvParent(env, training),
    '.venv',
    ...(process.platform === 'win32' ? ['Scripts', 'python.exe'] : ['bin', 'python']),
  );
}

/** Returns the commands that install the converter of Hugging Face models into the environment of `venvPython`. */
export function converterSteps(env: NodeJS.ProcessEnv, training = TRAINING): string {
  const parent = venvParent(env, training);
  const [venv, pkg] =
    parent === training
      ? ['training/.venv', "-e 'training[convert]'"]
      : [join(parent, '.venv'), `'${training}[convert]'`];
  return `\`python3 -m venv ${venv}\` and \`${venv}/bin/pip install ${pkg}\``;
}

/** Returns the folder of the environment: training/, or a cache folder for the npm package (npm replaces its files). */
function venvParent(env: NodeJS.ProcessEnv, training: string): string {
  const caches = userCaches(env);
  const isInstalled = basename(join(training, '..', '..')) === 'node_modules';
  return isInstalled && caches ? join(ownCaches(caches), 'training') : training;
}

/** Returns the first module that cannot be imported. Importing them would take seconds, so they are only looked up. */
function missingModule({ path, env }: Python): string | undefined {
  const script = [
    'import importlib.util, sys',
    'def lacks(name):',
    '    try: return importlib.util.find_spec(name) is None',
    '    except ImportError: return True',
    'print(next(filter(lacks, sys.argv[1:]), ""))',
  ].join('\n');
  const { status, stdout } = spawnSync(path, ['-c', script, 'ptp_engine', ...MODULES], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
  });
  if (status !== 0) throw new StartError(`${path} is not a Python that runs: set PTP_PYTHON to another one`);
  return stdout.trim() || undefined;
}

/**
 * Makes the environment, or updates it to pyproject.toml, as scripts/training-venv.sh does.
 *
 * @throws StartError if there is no suitable Python, or pip fails
 */
async function updateVenv(env: NodeJS.ProcessEnv, training: string, python: string): Promise<void> {
  const project = join(training, 'pyproject.toml');
  const parent = venvParent(env, training);
  const venv = join(parent, '.venv');
  const stamp = join(venv, 'installed-serve-pyproject.toml');
  if (existsSync(stamp) && readFileSync(stamp).equals(readFileSync(project))) return;
  const cuda = hasNvidiaGpu(env);
  const gigabytes = cuda ? SIZE.cuda : SIZE.cpu;
  const what = `PyTorch for ${cuda ? 'CUDA' : 'the CPU'} and transformers`;
  await mkdir(parent, { recursive: true });
  await checkSpace(parent, gigabytes * 1e9, 'installing PyTorch', 'set PTP_PYTHON to a Python that has it');
  say(`installing ${what}, about ${gigabytes} GB, in ${venv}, once`);
  if (!existsSync(python)) {
    const base = env.PYTHON || 'python3';
    const supported = 'import sys, venv; sys.exit(sys.version_info < (3, 10))';
    if (spawnSync(base, ['-c', supported], { stdio: 'ignore' }).status !== 0) {
      throw new StartError(
        `--engine torch needs Python 3.10 or later with venv, got ${base}: set PYTHON or PTP_PYTHON`,
      );
    }
    run(base, ['-m', 'venv', venv]);
  }
  if (parent !== training) await cp(training, parent, { recursive: true }); // pip writes next to the sources.
  const index = process.platform === 'linux' && !cuda ? ['--extra-index-url', CPU_INDEX] : [];
  const options = ['--quiet', '--disable-pip-version-check', ...index];
  run(python, ['-m', 'pip', 'install', ...options, '--editable', `${parent}[serve]`]);
  await copyFile(project, stamp);
}

function run(command: string, args: readonly string[]): void {
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  if (status === 0) return;
  const reason = error?.message ?? `status ${status}`;
  throw new StartError(`\`${command} ${args.join(' ')}\` has failed (${reason}): check the network, then start again`);
}
