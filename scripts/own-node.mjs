// Plain JavaScript, because with-install.mjs runs on any Node from version 20.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';

/** Key in package-lock.json of the package with the project's Node. Some platforms have no such package. */
export const ownNodePackage = `node_modules/node-${process.platform === 'win32' ? 'win' : process.platform}-${process.arch}`;

/**
 * Returns arguments for `spawn` that run a command of node_modules/.bin.
 *
 * @param {string} command
 * @param {string[]} args
 * @param {string} root
 * @param {NodeJS.Platform} platform
 * @returns {{ file: string, args: string[], shell: boolean }}
 */
export function spawnable(command, args, root, platform = process.platform) {
  if (platform !== 'win32') return { file: command, args, shell: false };
  const own = join(root, ownNodePackage, 'bin', 'node.exe');
  if (command === 'node') return { file: existsSync(own) ? own : process.execPath, args, shell: false };
  // Windows runs the .cmd files of other tools only in a shell, to which Node passes arguments without quotes.
  return { file: command, args: args.map((arg) => `"${arg.replaceAll('"', '""')}"`), shell: true };
}
