import type { SamplingParams } from '@ptp/protocol/sampling-params';

export interface Wish {
  readonly sampling: SamplingParams;
  readonly seed: number;
  readonly maxTokens: number;
}

/** An engine in one of its ways of decoding. */
export interface HealthWatcher {
  readonly name: string;
  /** Blocks of tokens as they come; what ends a text is not among them. Nothing is remembered from prompt to prompt. */
  generate(prompt: readonly number[], wish: Wish): AsyncIterable<readonly number[]>;
}

export interface Engine {
  readonly peers: readonly HealthWatcher[];
  stop(): Promise<unknown>;
}
