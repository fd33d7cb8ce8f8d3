import { cut } from '../../gateway/src/decode/block.ts';
import type { Controller } from '../../gateway/src/decode/controller.ts';
import type { StepPolicy } from '../../gateway/src/decode/pipeline-types.ts';
import type { Mode } from '../../gateway/src/decode/types.ts';

export type Policy = StepPolicy & Pick<Controller, 'close'>;

/** A policy that always drafts full blocks in one mode. It is the baseline for the controller. */
export const fixedPolicy = (mode: Mode, length: number, budget: number): Policy => ({
  choose: (isDrafterAvailable) => ({ mode: isDrafterAvailable ? mode : 'plain', reason: 'setting' }),
  room: (remaining) => Math.max(0, Math.min(length, remaining - 1)),
  better: (one, other) => (other.tokens.length > one.tokens.length ? other : one),
  worthVerifying: (block) => cut(block, 0, length),
  worthDrafting: (chosen, room) => (chosen === 'plain' ? 0 : room),
  worthSendingAhead: () => true,
  sentAhead: () => {},
  chances: ({ confidences }) => [...confidences],
  budget: () => budget,
  observe: () => {},
  close: () => {},
});
