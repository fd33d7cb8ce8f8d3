// A gRPC client in TypeScript with protobuf-es messages: tokens, steps, a deadline, cancellation and an error.
//   node examples/grpc-client.ts [127.0.0.1:8081]

import { connect } from '@ptp/protocol/client';
import { GenerationService } from '@ptp/protocol/gen/ptp/v1/generation_pb';

const client = connect(GenerationService, process.argv[2] ?? '127.0.0.1:8081');
const { modelId, contextLength } = await client.getModel({});
console.log(`${modelId}, ${contextLength} tokens of context`);

const prompt = { case: 'text', value: 'export interface User {' } as const;
let [tokens, steps] = [0, 0];
const stream = client.generate(
  { prompt, maxTokens: 60, sampling: { temperature: 0.7 }, seed: 1n },
  { deadlineMs: 30_000 },
);
for await (const { text, tokens: committed, step } of stream) {
  process.stdout.write(text);
  tokens += committed.length;
  steps = (step?.step ?? 0) + 1;
}
console.log(`\n${tokens} tokens in ${steps} steps`);

// Leaving the loop cancels the call and frees its resources on the server.
for await (const _ of client.generate({ prompt, maxTokens: 500 })) break;

try {
  for await (const _ of client.generate({ prompt, sampling: { temperature: 3 } }));
} catch (error) {
  const { code, message, field } = error as { code: string; message: string; field: string };
  console.log(`${code} in ${field}: ${message}`);
}
client.close();
