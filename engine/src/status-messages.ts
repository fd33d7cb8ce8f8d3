import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type ModelFactsSchema, type Timings, TimingsSchema } from '@ptp/protocol/gen/ptp/v1/common_pb';
import type { Manifest } from '@ptp/protocol/manifest';
import type { Served } from './scheduler.ts';
import type { Engine } from './types.ts';

// Protobuf messages that the drafter and the verifier share.

export type ModelMessage = MessageInitShape<typeof ModelFactsSchema>;

/** Describes the loaded model. The gateway compares this message with its own manifest. */
export function modelMessage(manifest: Manifest): ModelMessage {
  return {
    modelId: manifest.id,
    tokenizerSha256: manifest.tokenizer.sha256,
    vocabularySize: manifest.sizes.vocab,
    contextLength: manifest.context_length,
    uniformsPerPosition: manifest.uniforms_per_position,
    endOfText: manifest.end_of_text,
  };
}

/** Reports open sequences, and the contents and use of the engine's caches. */
export function usageMessage(engine: Engine) {
  const { sequences: openSequences, cacheBytes } = engine.usage();
  const { sequences, bytes, lookups, hits, reusedTokens } = engine.prefixCache();
  return {
    openSequences,
    cacheBytes: BigInt(cacheBytes),
    prefixCache: {
      sequences,
      bytes: BigInt(bytes),
      lookups: BigInt(lookups),
      hits: BigInt(hits),
      reusedTokens: BigInt(reusedTokens),
    },
  };
}

/** @param tokens number of the slot's own tokens in the run */
export function timingsMessage(served: Served<unknown>, tokens: number): Timings {
  const { queueMicros: queueUs, runMicros: runUs, batchSize, batchTokens } = served;
  return create(TimingsSchema, { queueUs, runUs, batchSize, tokens, batchTokens });
}
