/** Deletes what npm installs and no process here reads: native libraries for other systems, headers and manuals. */
export function pruneNativeFiles(modules: string): void;
