import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** Has its own package.json, so that no peer is a dependency of the project. */
const FOLDER = import.meta.dirname;
const MODULES = join(FOLDER, 'node_modules');

/** Imports a peer by the path of its module in node_modules; installs the peers first if necessary. */
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
  const required = Object.values(dependencies);
  return (await Promise.all(versions)).every((version, i) => version === required[i]);
}

/**
 * Installs bench/peers/package.json with the binaries that npm brings. There is no lock file: one made on a registry that lacks some
 * platforms' binaries makes `npm ci` fail elsewhere.
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
