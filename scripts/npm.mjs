// Plain JavaScript, because with-install.mjs runs on any Node from version 20.
import { spawnSync } from 'node:child_process';
import process from 'node:process';

/**
 * Runs npm, preferably the npm that started this process, or else the one on the path. Its output goes to standard
 * error.
 *
 * @param {string[]} args
 * @param {string} cwd
 * @returns {string | undefined} reason for the failure, if any
 */
export function runNpm(args, cwd) {
  const own = process.env.npm_execpath?.endsWith('npm-cli.js') ? process.env.npm_execpath : undefined;
  const { status, error } = spawnSync(own ? process.execPath : 'npm', [...(own ? [own] : []), ...args], {
    cwd,
    stdio: ['ignore', 2, 2],
    shell: !own && process.platform === 'win32',
  });
  if (status === 0) return undefined;
  return `npm ${args[0]} failed${error ? `: ${error.message}` : ` with status ${status}`}`;
}
