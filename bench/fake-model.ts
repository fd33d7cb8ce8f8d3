/** Describes the pair that fake-service.ts serves. The values are the defaults of the fake engines. */
export const fakeModel = {
  modelId: 'fake',
  tokenizerSha256: 'f'.repeat(64),
  vocabulary: 256,
  contextLength: 1024,
  endOfText: 0,
} as const;
