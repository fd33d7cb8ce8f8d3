import type { SamplingParams } from '@ptp/protocol/sampling-params';

export interface PeerRequest {
  readonly sampling: SamplingParams;
  readonly seed: number;
  readonly maxTokens: number;
}

/** One way of decoding of an engine. */
export interface Peer {
  readonly name: string;
  /** Yields blocks of tokens as they arrive, without the end of text. No prompt cache: each call starts afresh. */
  generate(prompt: readonly number[], request: PeerRequest): AsyncIterable<readonly number[]>;
}

export interface Engine {
  readonly peers: readonly Peer[];
  stop(): Promise<unknown>;
}
