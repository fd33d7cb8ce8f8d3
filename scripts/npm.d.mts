/** Runs npm in a folder, with its output on standard error. Returns what went wrong, if anything. */
export function runNpm(args: string[], cwd: string): string | undefined;
