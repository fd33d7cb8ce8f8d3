import { PtpError } from '@ptp/protocol/errors';
import type { LlamaContextSequence } from 'node-llama-cpp';
import { sharedLength, wholeBlocks } from '../prefix-blocks.ts';
import type { SequenceId } from '../types.ts';

/** Slot for one of llama.cpp's sequences. */
interface Slot {
  readonly sequence: LlamaContextSequence;
  owner: SequenceId | undefined;
}

/**
 * Assigns one of llama.cpp's sequences to each open sequence. llama.cpp allocates memory for all its sequences at the
 * start. A closed sequence keeps its rows, for prompts that begin alike, until another sequence needs the slot.
 */
export class SequenceSlots {
  /** All slots. The one whose sequence was closed longest ago comes first. */
  #slots: Slot[];
  readonly #rowLimit: number;

  /** @param rowLimit maximum number of rows of closed sequences to keep; 0 to keep none */
  constructor(sequences: readonly LlamaContextSequence[], rowLimit: number) {
    this.#slots = sequences.map((sequence) => ({ sequence, owner: undefined }));
    this.#rowLimit = rowLimit;
  }

  /** Returns the number of closed sequences that keep rows, and the number of these rows. */
  parked(): { sequences: number; rows: number } {
    const kept = this.#slots.filter((slot) => slot.owner === undefined && rowsOf(slot) > 0);
    return { sequences: kept.length, rows: kept.reduce((sum, slot) => sum + rowsOf(slot), 0) };
  }

  /**
   * Returns the sequence's slot. A new sequence gets an empty slot, or else the slot whose sequence was closed longest
   * ago.
   */
  slotOf(owner: SequenceId): LlamaContextSequence {
    const held = this.#slots.find((slot) => slot.owner === owner);
    if (held) return held.sequence;
    const free = this.#slots.filter((slot) => slot.owner === undefined);
    const slot = free.find((slot) => rowsOf(slot) === 0) ?? free[0];
    if (!slot) throw new PtpError('resource_exhausted', `overloaded: ${this.#slots.length} sequences are open already`);
    slot.owner = owner;
    return slot.sequence;
  }

  /**
   * Assigns the slot of the closed sequence that shares the most rows with `tokens`.
   *
   * @returns number of rows that can be reused, in whole blocks
   */
  reuse(owner: SequenceId, tokens: readonly number[]): number {
    let best: { slot: Slot; rows: number } | undefined;
    for (const slot of this.#slots) {
      if (slot.owner !== undefined) continue;
      const rows = wholeBlocks(sharedLength(slot.sequence.contextTokens, tokens));
      if (rows > 0 && rows >= (best?.rows ?? 0)) best = { slot, rows };
    }
    if (!best) return 0;
    best.slot.owner = owner;
    return best.rows;
  }

  /**
   * Frees the sequence's slot. Then erases rows of closed sequences until the limit is met, those closed longest ago
   * first.
   */
  async close(owner: SequenceId): Promise<void> {
    const slot = this.#slots.find((slot) => slot.owner === owner);
    if (!slot) return;
    slot.owner = undefined;
    this.#slots = [...this.#slots.filter((other) => other !== slot), slot];
    let rows = 0;
    for (const slot of this.#slots.toReversed()) {
      if (slot.owner !== undefined) continue;
      rows += rowsOf(slot);
      if (rows <= this.#rowLimit) continue;
      rows -= rowsOf(slot);
      await slot.sequence.clearHistory();
    }
  }
}

function rowsOf({ sequence }: Slot): number {
  return sequence.nextTokenIndex;
}
