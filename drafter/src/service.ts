import { type ModelMessage, usageMessage } from '@ptp/engine/status-messages';
import { DrafterService } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { type ImplementedService, implement } from '@ptp/protocol/server';
import type { Drafter } from './drafter.ts';

/** Returns the gRPC service of a drafter that drafts for the target of `model`. */
export function drafterService(drafter: Drafter, model: ModelMessage): ImplementedService {
  const { engine } = drafter;
  return implement(DrafterService, {
    getDrafter: () => ({ model, ...usageMessage(engine), maxBranchLength: engine.maxBranchLength }),
    draft: (requests, { signal }) => drafter.draft(requests, signal),
  });
}
