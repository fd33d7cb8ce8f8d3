import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ModelFactsSchema } from '@ptp/core/gen/ptp/v1/common_pb.ts';
import { DrafterService } from '@ptp/core/gen/ptp/v1/drafter_pb.ts';
import { prefixCacheFacts } from '@ptp/core/model-facts.ts';
import { type ImplementedService, implement } from '@ptp/core/rpc/server.ts';
import type { Drafter } from './draft.ts';

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
