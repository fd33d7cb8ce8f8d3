import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** This folder has its own package.json, so that the peers are not dependencies of the project. */
const FOLDER = import.meta.dirname;
const MODULES = join(FOLDER, 'node_modules');

/** Imports a peer from `path` within node_modules. Installs all peers first if necessary. */
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
 * Installs bench/peers/package.json, with prebuilt binaries from npm. It writes no lock file: a lock file from a registry that lacks the
 * binaries of some platforms would make `npm ci` fail on those platforms.
 */
function install(): void {
  console.error('installing the peers in bench/peers (more than 1 GB)');
  const { status } = spawnSync('npm', ['install', '--no-package-lock', '--ignore-scripts', '--no-audit', '--no-fund'], {
    cwd: FOLDER,
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32',
  });
  if (status !== 0) throw new Error(`npm install in bench/peers failed with status ${status}`);
}
