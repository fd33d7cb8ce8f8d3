// Runs a command with the project's own Node (24) and tools, after installing what is missing:
//
//   node scripts/with-install.mjs [--serving] [command] [arguments...]     without a command, only installs
//
// With --serving, installs no development dependencies.
//
// Plain JavaScript for Node >= 20: npm starts this file with the system's Node, before node_modules contains a Node
// that runs TypeScript. Exits with the command's status.
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { runNpm } from './npm.mjs';
import { ownNodePackage, spawnable } from './own-node.mjs';
import { pruneNativeFiles } from './prune-native-files.mjs';
import { reasonToInstall } from './reason-to-install.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const bin = join(root, 'node_modules', '.bin');
const windows = process.platform === 'win32';

/** @returns {import('./reason-to-install.d.mts').Packages} */
function packagesIn(lockfile) {
  return JSON.parse(readFileSync(join(root, lockfile), 'utf8')).packages;
}

/** @returns {import('./reason-to-install.d.mts').Packages | undefined} */
function installedPackages() {
  try {
    return packagesIn(join('node_modules', '.package-lock.json'));
  } catch {
    return undefined;
  }
}

function install(reason, serving) {
  const scope = serving ? 'the dependencies for serving (290 MB)' : 'all dependencies (690 MB)';
  console.error(`ptp-server: ${reason}; installing ${scope} with npm ci`);
  const omit = serving ? ['--omit=dev'] : ['--include=dev'];
  // Some packages need a newer Node than the one that runs npm. A warning would mislead: npm installs that Node too.
  const problem = runNpm(['ci', '--no-audit', '--no-fund', '--loglevel=error', '--prefer-offline', ...omit], root);
  if (problem !== undefined) exit(problem);
  pruneNativeFiles(join(root, 'node_modules'));
}

function exit(problem) {
  console.error(`ptp-server: ${problem}`);
  process.exit(1);
}

function run([command, ...given]) {
  const path = `${bin}${delimiter}${process.env.PATH ?? ''}`;
  const { file, args, shell } = spawnable(command, given, root);
  const child = spawn(file, args, { stdio: 'inherit', shell, env: { ...process.env, PATH: path } });
  // A terminal sends SIGINT to the child as well, but SIGTERM reaches only this process.
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => child.kill('SIGTERM'));
  child.on('error', (error) => {
    console.error(`ptp-server: cannot run ${command}: ${error.message}`);
    process.exit(127);
  });
  child.on('exit', (code, signal) => process.exit(signal ? 1 : (code ?? 1)));
}

const major = Number(process.versions.node.split('.')[0]);
if (major < 20) exit(`needs Node 20 or later to start, got ${process.versions.node}`);
const args = process.argv.slice(2);
const serving = args[0] === '--serving';
const tooOld = `needs Node 24 on ${process.platform} ${process.arch}, got ${process.versions.node}`;
if (major < 24 && !packagesIn('package-lock.json')[ownNodePackage]) exit(tooOld);
const reason = reasonToInstall(packagesIn('package-lock.json'), installedPackages(), serving);
if (reason) install(reason, serving);
const command = serving ? args.slice(1) : args;
const ownNode = existsSync(join(bin, windows ? 'node.cmd' : 'node'));
if (major < 24 && !ownNode) exit(tooOld);
if (command.length > 0) run(command);
