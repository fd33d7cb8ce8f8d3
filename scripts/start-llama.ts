/** Installs node-llama-cpp, which runs GGUF files, when it is first needed. */
import { existsSync, lstatSync, mkdirSync, readFileSync, readlinkSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { hasNvidiaGpu } from './gpus.ts';
import { runNpm } from './npm.mjs';
import { StartError, say } from './supervisor.ts';

const PACKAGE = 'node-llama-cpp';
const SERVICE_KIT = join(fileURLToPath(import.meta.resolve('@ptp/service-kit/llama-cpp')), '..', '..');
/** Path at which service-kit and engine, which are next to each other, find the package. */
const LINK = join(SERVICE_KIT, '..', 'node_modules', PACKAGE);

/**
 * Returns the path of a node-llama-cpp that the user has installed: in the node_modules of a clone, or in the one that
 * contains the npm package.
 *
 * @param serviceKit folder of service-kit
 */
export function usersLlama(serviceKit: string): string | undefined {
  const link = join(serviceKit, '..', 'node_modules', PACKAGE);
  if (existsSync(link) && !lstatSync(link).isSymbolicLink()) return link; // A link is that of `installLlama`.
  const sibling = join(serviceKit, '..', '..', PACKAGE);
  return basename(dirname(sibling)) === 'node_modules' && existsSync(sibling) ? sibling : undefined;
}

/** Accelerators for which node-llama-cpp has a package in addition to the package for the CPU. */
export type Accelerator = 'cuda' | 'vulkan';

/** Returns the packages with the binaries for a machine, and their size on disk together with node-llama-cpp itself. */
export function binaryPackages(platform: NodeJS.Platform, arch: string, accelerator: Accelerator | undefined) {
  if (platform === 'darwin') {
    return { packages: [arch === 'arm64' ? 'mac-arm64-metal' : 'mac-x64'], megabytes: 80 };
  }
  const base = `${platform === 'win32' ? 'win' : 'linux'}-${arch === 'arm' ? 'armv7l' : arch}`;
  if (arch !== 'x64' || accelerator === undefined) return { packages: [base], megabytes: 85 };
  if (accelerator === 'vulkan') return { packages: [base, `${base}-vulkan`], megabytes: 160 };
  return { packages: [base, `${base}-cuda`, `${base}-cuda-ext`], megabytes: 630 };
}

/**
 * Returns the accelerator of this machine. On a Mac, there is none to choose, because the package for the CPU includes
 * Metal.
 */
function accelerator(): Accelerator | undefined {
  if (hasNvidiaGpu()) return 'cuda';
  return process.platform === 'win32' || existsSync('/dev/dri/renderD128') ? 'vulkan' : undefined;
}

/**
 * Makes node-llama-cpp available to the services if it is not yet. The package is in a separate folder, to which
 * node_modules has a link. It therefore survives `npm ci`, and its binaries for other machines need not be installed.
 *
 * @param caches path of the folder of this project's caches
 * @throws StartError if npm cannot install it
 */
export async function installLlama(caches: string): Promise<void> {
  const { peerDependencies } = JSON.parse(readFileSync(join(SERVICE_KIT, 'package.json'), 'utf8'));
  const version: string = peerDependencies[PACKAGE];
  const users = usersLlama(SERVICE_KIT);
  if (users) {
    if (users !== LINK) rmSync(LINK, { force: true }); // Node would prefer the package at LINK.
    return;
  }
  const { packages, megabytes } = binaryPackages(process.platform, process.arch, accelerator());
  const dir = join(caches, `${PACKAGE}-${version}-${packages.at(-1)}`);
  const target = join(dir, 'node_modules', PACKAGE);
  if (!existsSync(target)) {
    say(`installing ${PACKAGE} ${version} (${packages.at(-1)}, about ${megabytes} MB) for GGUF models in ${dir}`);
    const part = `${dir}.part`;
    rmSync(part, { recursive: true, force: true });
    mkdirSync(part, { recursive: true });
    await writeFile(join(part, 'package.json'), '{"private":true}');
    const names = [PACKAGE, ...packages.map((name) => `@${PACKAGE}/${name}`)].map((name) => `${name}@${version}`);
    const options = ['--omit=optional', '--ignore-scripts', '--no-save', '--no-audit', '--no-fund', '--loglevel=error'];
    const problem = runNpm(['install', ...options, ...names], part);
    if (problem) throw new StartError(`${problem}: GGUF models need ${PACKAGE}; check the network, then start again`);
    renameSync(part, dir);
  }
  if (existsSync(LINK) && readlinkSync(LINK) === target) return;
  rmSync(LINK, { force: true });
  mkdirSync(dirname(LINK), { recursive: true });
  symlinkSync(target, LINK, 'junction');
}
