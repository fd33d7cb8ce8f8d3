/** The pair of fake-service.ts: the defaults of fake-engine.ts. */
export const fakeFacts = {
  modelId: 'fake',
  tokenizerSha256: 'f'.repeat(64),
  vocabulary: 256,
  contextLength: 1024,
  endOfText: 0,
} as const;
