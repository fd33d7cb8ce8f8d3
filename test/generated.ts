import type { GenerationRequest, GenerationStep, Generator } from '../gateway/src/decode/types.ts';

/** Decodes a request to its end. */
export async function stepsOf(generator: Generator, request: GenerationRequest): Promise<GenerationStep[]> {
  const steps: GenerationStep[] = [];
  for await (const step of generator.generate(request, new AbortController().signal)) steps.push(step);
  return steps;
}

export const tokensOf = (steps: readonly GenerationStep[]): number[] => steps.flatMap(({ tokens }) => tokens);

/** Returns the tokens of ASCII text for the tiny models, whose vocabulary is the end-of-text token and the 256 bytes. */
export const asciiTokens = (text: string): number[] => Array.from(text, (c) => c.charCodeAt(0) + 1);

/** Requests of 120 tokens each, from temperature 0 to high temperatures. */
export const variedRequests: readonly GenerationRequest[] = [0, 0.7, 1, 1.3].map((temperature, i) => ({
  prompt: [0, ...asciiTokens('export interface A')],
  sampling: { temperature, topK: i % 2 === 0 ? 0 : 50, topP: i === 3 ? 0.95 : 1, minP: i === 2 ? 0.1 : 0 },
  seed: BigInt(i),
  maxTokens: 120,
  ignoreEndOfText: true,
}));
