/**
 * Runs a real service with a fake engine, which takes a fixed time per run and computes tokens with a hash function:
 * `node bench/fake-service.ts verifier|drafter ADDRESS MILLIS [checks]`.
 */
import { FakeDraftEngine, FakeTargetEngine } from '@ptp/engine/testing/fake-engine';
import { type ImplementedService, serve } from '@ptp/protocol/server';
import { runService } from '@ptp/service-kit/lifecycle';
import { Drafter } from '../drafter/src/drafter.ts';
import { drafterService } from '../drafter/src/service.ts';
import { verifierService } from '../verifier/src/service.ts';
import { Verifier } from '../verifier/src/verifier.ts';
import { fakeModel } from './fake-model.ts';

const [kind, address = '', millis, checks] = process.argv.slice(2);
const latencyMs = Number(millis);
const scheduling = { prefillChunk: 128, batchTokens: 256, sequences: 256, queue: 256 };
const { modelId, tokenizerSha256, vocabulary, contextLength } = fakeModel;
const model = { modelId, tokenizerSha256, vocabularySize: vocabulary, contextLength };

function fakeVerifier(): ImplementedService {
  return verifierService(new Verifier(new FakeTargetEngine({ latencyMs }), { draft: 64, ...scheduling }), model, true);
}

function fakeDrafter(): ImplementedService {
  const engine = new FakeDraftEngine({ latencyMs, accuracy: 0.75, checks: checks !== undefined });
  return drafterService(new Drafter(engine, { budget: 64, block: 64, ...scheduling }), model);
}

await runService(`fake ${kind}`, async (logger, onStop) => {
  const services = [kind === 'verifier' ? fakeVerifier() : fakeDrafter()];
  const server = await serve({ address, logger, services });
  onStop(() => server.close(0));
});
