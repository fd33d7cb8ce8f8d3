import type { MessageInitShape } from '@bufbuild/protobuf';
import { prefixCacheFacts } from '@ptp/engine/model-info';
import type { ModelFactsSchema } from '@ptp/protocol/gen/ptp/v1/common_pb';
import { VerifierService } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { type ImplementedService, implement } from '@ptp/protocol/server';
import type { Verifier } from './verifier.ts';

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
