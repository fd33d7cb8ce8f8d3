/** Key in package-lock.json of the package with the project's Node. Some platforms have no such package. */
export const ownNodePackage: string;
/** Returns arguments for `spawn` that run a command of node_modules/.bin. */
export function spawnable(
  command: string,
  args: string[],
  root: string,
  platform?: NodeJS.Platform,
): { file: string; args: string[]; shell: boolean };
