/** Deletes files that npm installs and no process reads: native libraries for other systems, headers and manuals. */
export function pruneNativeFiles(modules: string): void;
