import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { SamplingParams } from '@ptp/protocol/sampling-params';

export interface PeerRequest {
  readonly sampling: SamplingParams;
  readonly seed: number;
  readonly maxTokens: number;
}

/** One way in which an engine can decode. */
export interface Peer {
  readonly name: string;
  /** Yields blocks of tokens as they arrive, without the end-of-text token. Each call starts without a prompt cache. */
  generate(prompt: readonly number[], request: PeerRequest): AsyncIterable<readonly number[]>;
}

export interface Engine {
  readonly peers: readonly Peer[];
  stop(): Promise<unknown>;
}

/** Folder with its own package.json, so that the peers are not dependencies of the project. */
const FOLDER = import.meta.dirname;

/** Imports a peer. @param path path of the main module within node_modules */
export async function importPeer<Library>(path: string): Promise<Library> {
  try {
    return await import(pathToFileURL(join(FOLDER, 'node_modules', path)).href);
  } catch (cause) {
    const install = `npm install --prefix ${FOLDER} --no-package-lock --ignore-scripts`;
    throw new Error(`cannot load ${path}: run \`${install}\` (more than 1 GB)`, { cause });
  }
}
