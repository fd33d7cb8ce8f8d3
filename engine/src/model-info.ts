import { create } from '@bufbuild/protobuf';
import {
  type ModelFacts,
  ModelFactsSchema,
  type PrefixCacheFacts,
  PrefixCacheFactsSchema,
} from '@ptp/protocol/gen/ptp/v1/common_pb';
import type { Manifest } from '@ptp/protocol/manifest';
import type { PrefixCacheUsage } from './types.ts';

/** A pair's facts as the services tell them; the gateway compares them with its own. */
export function modelFacts(manifest: Manifest): ModelFacts {
  return create(ModelFactsSchema, {
    modelId: manifest.id,
    tokenizerSha256: manifest.tokenizer.sha256,
    vocabularySize: manifest.sizes.vocab,
    contextLength: manifest.context_length,
    uniformsPerPosition: manifest.uniforms_per_position,
    endOfText: manifest.end_of_text,
  });
}

/** What a service says of its prefix cache. */
export function prefixCacheFacts(usage: PrefixCacheUsage): PrefixCacheFacts {
  const { sequences, bytes, lookups, hits, reusedTokens } = usage;
  return create(PrefixCacheFactsSchema, {
    sequences,
    bytes: BigInt(bytes),
    lookups: BigInt(lookups),
    hits: BigInt(hits),
    reusedTokens: BigInt(reusedTokens),
  });
}
