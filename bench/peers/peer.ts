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
