// Runs a command with the project's own Node (24) and tools, after installing what is missing:
//
//   node scripts/with-install.mjs [command] [arguments...]     without a command, only installs
//
// Plain JavaScript for Node >= 20: npm starts this file with the system's Node, before node_modules contains a Node
// that runs TypeScript. Exits with the command's status.
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { runNpm } from './npm.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const bin = join(root, 'node_modules', '.bin');
const windows = process.platform === 'win32';

/** @returns {Record<string, {version?: string, optional?: boolean, link?: boolean, peer?: boolean}>} path -> package */
function packagesIn(lockfile) {
  return JSON.parse(readFileSync(join(root, lockfile), 'utf8')).packages;
}

/** @returns the reason why an install is needed, or undefined if node_modules matches package-lock.json */
function reasonToInstall() {
  const wanted = packagesIn('package-lock.json');
  let installed;
  try {
    installed = packagesIn(join('node_modules', '.package-lock.json'));
  } catch {
    return 'node_modules is missing';
  }
  for (const [path, { version, optional, link }] of Object.entries(wanted)) {
    if (!path.includes('node_modules/') || link) continue;
    const found = installed[path];
    if (found ? found.version !== version : !optional) return `${path} is not at ${version}`;
  }
  return undefined;
}

function install(reason) {
  console.error(`ptp-server: ${reason}; running npm ci`);
  const problem = runNpm(['ci', '--no-audit', '--no-fund'], root);
  if (problem === undefined) return;
  console.error(`ptp-server: ${problem}`);
  process.exit(1);
}

function run([command, ...args]) {
  const path = `${bin}${delimiter}${process.env.PATH ?? ''}`;
  const child = spawn(command, args, { stdio: 'inherit', shell: windows, env: { ...process.env, PATH: path } });
  // A terminal sends SIGINT to the child as well, but SIGTERM reaches only this process.
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => child.kill('SIGTERM'));
  child.on('error', (error) => {
    console.error(`ptp-server: cannot run ${command}: ${error.message}`);
    process.exit(127);
  });
  child.on('exit', (code, signal) => process.exit(signal ? 1 : (code ?? 1)));
}

if (Number(process.versions.node.split('.')[0]) < 20) {
  console.error(`ptp-server: needs Node 20 or later to start, got ${process.versions.node}`);
  process.exit(1);
}
const reason = reasonToInstall();
if (reason) install(reason);
const command = process.argv.slice(2);
if (command.length > 0) run(command);
