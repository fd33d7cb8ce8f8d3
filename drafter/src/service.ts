import type { MessageInitShape } from '@bufbuild/protobuf';
import { prefixCacheFacts } from '@ptp/engine/model-info';
import type { ModelFactsSchema } from '@ptp/protocol/gen/ptp/v1/common_pb';
import { DrafterService } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { type ImplementedService, implement } from '@ptp/protocol/server';
import type { Drafter } from './drafter.ts';

/** The gRPC service of a drafter that was trained for the target of `model`. */
export function drafterService(drafter: Drafter, model: MessageInitShape<typeof ModelFactsSchema>): ImplementedService {
  return implement(DrafterService, {
    getDrafter: () => {
      const { maxBranchLength } = drafter.engine;
      const { sequences, cacheBytes } = drafter.engine.usage();
      const prefixCache = prefixCacheFacts(drafter.engine.prefixCache());
      return { model, openSequences: sequences, cacheBytes: BigInt(cacheBytes), maxBranchLength, prefixCache };
    },
    draft: (requests, { signal }) => drafter.draft(requests, signal),
  });
}
