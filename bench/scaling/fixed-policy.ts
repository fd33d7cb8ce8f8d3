import { type Block, cut } from '../../gateway/src/decode/block.ts';
import type { Controller, StepDecision } from '../../gateway/src/decode/controller.ts';
import type { Mode } from '../../gateway/src/decode/mode-selector.ts';
import type { StepPolicy } from '../../gateway/src/decode/pipeline-types.ts';

export type Policy = StepPolicy & Pick<Controller, 'close'>;

/** Always drafts in one mode and in full: what the controller is compared with. */
export class FixedPolicy implements Policy {
  readonly #mode: Mode;
  readonly #length: number;
  readonly #budget: number;

  constructor(mode: Mode, length: number, budget: number) {
    this.#mode = mode;
    this.#length = length;
    this.#budget = budget;
  }

  choose(isDrafterAvailable: boolean): StepDecision {
    return { mode: isDrafterAvailable ? this.#mode : 'plain', reason: 'setting' };
  }

  room(remaining: number): number {
    return Math.max(0, Math.min(this.#length, remaining - 1));
  }

  better(one: Block, other: Block): Block {
    return other.tokens.length > one.tokens.length ? other : one;
  }

  worthVerifying(block: Block): Block {
    return cut(block, 0, this.#length);
  }

  worthDrafting(mode: Mode, room: number): number {
    return mode === 'plain' ? 0 : room;
  }

  worthSendingAhead(): boolean {
    return true;
  }

  chances({ confidences }: Block): number[] {
    return [...confidences];
  }

  budget(): number {
    return this.#budget;
  }

  sentAhead(): void {}
  observe(): void {}
  close(): void {}
}
