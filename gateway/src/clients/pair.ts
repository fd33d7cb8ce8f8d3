import type { Manifest } from '@ptp/protocol/manifest';
import type { ServicesOptions } from './pair-client.ts';

/** What the gateway has to know of the pair in a model folder; both services have to agree with it. */
export function pairFacts(manifest: Manifest): ServicesOptions['facts'] {
  return {
    modelId: manifest.id,
    vocabulary: manifest.sizes.vocab,
    contextLength: manifest.context_length,
    endOfText: manifest.end_of_text,
    stopTokens: manifest.stop_tokens,
    beginOfText: manifest.begin_of_text === undefined ? manifest.end_of_text : manifest.begin_of_text,
    tokenizerSha256: manifest.tokenizer.sha256,
  };
}
