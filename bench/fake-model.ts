import { FakeTargetEngine } from '@ptp/engine/testing/fake-engine';
import { loadManifest } from '@ptp/protocol/manifest';

/** Describes the pair that fake-service.ts serves. The values are the defaults of the fake engines. */
export const fakeModel = {
  modelId: 'fake',
  tokenizerSha256: 'f'.repeat(64),
  vocabulary: 256,
  contextLength: 1024,
  endOfText: 0,
} as const;

/** Returns a fake target with the vocabulary of a model. */
export async function fakeTargetFor(dir: string): Promise<FakeTargetEngine> {
  const { sizes, context_length: contextLength, uniforms_per_position: uniformsPerPosition } = await loadManifest(dir);
  return new FakeTargetEngine({ vocabulary: sizes.vocab, contextLength, uniformsPerPosition });
}
