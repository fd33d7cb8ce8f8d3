import type { Draft, DraftStream, Proposal, Streams, Verdict, VerifyStream } from '../gateway/src/decode/ports.ts';
import type { Health, ModelInfo } from '../gateway/src/decode/types.ts';
import { fakeFacts } from './fake-facts.ts';

/** Services that answer at once and accept everything, in the gateway's own process: what is left is the loop's own time. */
export class NullStreams implements Streams {
  readonly model: ModelInfo = { ...fakeFacts, contextLength: 1_000_000 };

  health(): Health {
    return { verifier: true, drafter: true };
  }

  verify(): VerifyStream {
    const answer = async ({ block }: Proposal): Promise<Verdict> => ({
      accepted: block.length,
      nextToken: 1,
      logProbabilities: [...block.map(() => -1), -1],
      tops: [],
      time,
    });
    const time = { micros: 10, queueMicros: 1, runMicros: 8, batchSize: 1, drafted: 5 };
    return {
      opened: async () => ({ reusedTokens: 0 }),
      step: answer,
      stepAfter: (_, proposal) => answer(proposal),
      close: () => {},
    };
  }

  draft(): DraftStream {
    return {
      opened: async () => {},
      available: () => true,
      commit: () => {},
      step: async (block): Promise<Draft> => {
        const branch = { accepted: block.tokens.length, tokens: [1, 2, 3, 4, 5, 6], confidences: [1, 1, 1, 1, 1, 1] };
        const branches = [{ $typeName: 'ptp.v1.Branch' as const, ...branch }];
        return { branches, micros: 10, queueMicros: 1, runMicros: 8, batchSize: 1 };
      },
      close: () => {},
    };
  }
}
