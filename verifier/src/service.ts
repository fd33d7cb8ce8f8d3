import { type ModelMessage, usageMessage } from '@ptp/engine/status-messages';
import { VerifierService } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { type ImplementedService, implement } from '@ptp/protocol/server';
import type { Verifier } from './verifier.ts';

/**
 * Returns the gRPC service of a verifier for the target of `model`. `batchInvariant` is the result of the self-check.
 */
export function verifierService(verifier: Verifier, model: ModelMessage, batchInvariant: boolean): ImplementedService {
  const {
    engine = '',
    candidateLimit = 0,
    quantization = '',
    device = '',
    threads = 0,
    rejectsRepetitionPenalty = false,
  } = verifier.engine.info;
  const differences = { engine, candidateLimit, quantization, device, threads, rejectsRepetitionPenalty };
  return implement(VerifierService, {
    getTarget: () => ({ model, ...usageMessage(verifier.engine), batchInvariant, ...differences }),
    verify: (requests, { signal }) => verifier.verify(requests, signal),
  });
}
