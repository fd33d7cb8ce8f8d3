import type { MessageInitShape } from '@bufbuild/protobuf';
import type { ModelFactsSchema } from '@ptp/core/gen/ptp/v1/common_pb.ts';
import { VerifierService } from '@ptp/core/gen/ptp/v1/verifier_pb.ts';
import { prefixCacheFacts } from '@ptp/core/model-facts.ts';
import { type ImplementedService, implement } from '@ptp/core/rpc/server.ts';
import type { Verifier } from './verify.ts';

/** The gRPC service of a verifier that runs the target of `model`; `batchInvariant` by self-check.ts. */
export function verifierService(
  verifier: Verifier,
  model: MessageInitShape<typeof ModelFactsSchema>,
  batchInvariant: boolean,
): ImplementedService {
  return implement(VerifierService, {
    getTarget: () => {
      const { sequences, cacheBytes } = verifier.engine.usage();
      const prefixCache = prefixCacheFacts(verifier.engine.prefixCache());
      return { model, openSequences: sequences, cacheBytes: BigInt(cacheBytes), prefixCache, batchInvariant };
    },
    verify: (requests, { signal }) => verifier.verify(requests, signal),
  });
}
