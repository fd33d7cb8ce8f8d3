/** Path of the package with the project's Node, in package-lock.json, which has it for some machines only. */
export const ownNodePackage: string;
/** Returns how to spawn a command of node_modules/.bin. */
export function spawnable(
  command: string,
  args: string[],
  root: string,
  platform?: NodeJS.Platform,
): { file: string; args: string[]; shell: boolean };
