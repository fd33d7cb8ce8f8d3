import type { DraftOutput, DraftSlot, SequenceId, TargetOutput, TargetSlot } from '../types.ts';

// Messages between an engine and its worker thread, which answers requests in the order in which they were sent.

export type Request =
  | { readonly type: 'run'; readonly slots: readonly (TargetSlot | DraftSlot)[] }
  | { readonly type: 'reuse'; readonly sequence: SequenceId; readonly tokens: readonly number[] };

export type ToWorker =
  | (Request & { readonly id: number })
  | { readonly type: 'close'; readonly sequence: SequenceId }
  | { readonly type: 'stop' };

export interface RunAnswer<Output = TargetOutput | DraftOutput> {
  readonly outputs: Output[];
  readonly runMicros: number;
  /** Sizes in bytes of the caches of the slots' sequences. */
  readonly cacheBytes: readonly number[];
}

export interface ReuseAnswer {
  readonly rows: number;
  readonly cacheBytes: number;
}

export type FromWorker =
  | { readonly type: 'ready' }
  | { readonly type: 'answer'; readonly id: number; readonly answer: RunAnswer | ReuseAnswer }
  | { readonly type: 'failed'; readonly id: number; readonly reason: string }
  /** Reports the new contents of the prefix cache. */
  | { readonly type: 'parked'; readonly sequences: number; readonly bytes: number; readonly droppedTokens: number };
