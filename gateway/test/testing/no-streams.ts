import type { DraftStream, Streams, VerifyStream } from '../../src/decode/ports.ts';
import type { Health, ModelInfo } from '../../src/decode/types.ts';

/** Streams of a scripted generator, which opens none. */
export class NoStreams implements Streams {
  readonly model: ModelInfo = { modelId: 'none', vocabulary: 1, contextLength: 1, endOfText: 0 };

  health(): Health {
    return { verifier: false, drafter: false };
  }

  verify(): VerifyStream {
    throw new Error('a scripted generator opens no streams');
  }

  draft(): DraftStream {
    throw new Error('a scripted generator opens no streams');
  }
}
