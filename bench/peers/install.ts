import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** A folder of its own, so that no peer is a dependency of the project. */
const FOLDER = import.meta.dirname;
const MODULES = join(FOLDER, 'node_modules');

/** Imports a peer by the path of its module in node_modules; installs the peers first if that hasn't been done. */
export async function importPeer<Library>(path: string): Promise<Library> {
  if (!(await isInstalled())) install();
  return import(pathToFileURL(join(MODULES, path)).href);
}

async function isInstalled(): Promise<boolean> {
  const { dependencies } = JSON.parse(await readFile(join(FOLDER, 'package.json'), 'utf8'));
  const versions = Object.keys(dependencies).map((name) =>
    readFile(join(MODULES, name, 'package.json'), 'utf8').then(
      (text) => JSON.parse(text).version,
      () => undefined,
    ),
  );
  const wanted = Object.values(dependencies);
  return (await Promise.all(versions)).every((version, i) => version === wanted[i]);
}

/**
 * Installs what bench/peers/package.json names, with binaries that npm brings. Without a lock file: one that is made on a registry
 * that lacks the binaries of some platforms is refused by `npm ci` elsewhere.
 */
function install(): void {
  console.error('installing the peers in bench/peers, over a gigabyte');
  const { status } = spawnSync('npm', ['install', '--no-package-lock', '--ignore-scripts', '--no-audit', '--no-fund'], {
    cwd: FOLDER,
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32',
  });
  if (status !== 0) throw new Error(`npm install in bench/peers failed with status ${status}`);
}
