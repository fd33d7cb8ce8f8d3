import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomTokens } from '@ptp/engine/sampling/uniforms';
import { modelMessage } from '@ptp/engine/status-messages';
import { loadManifest, type Manifest } from '@ptp/protocol/manifest';
import { defaultSampling } from '@ptp/protocol/sampling-params';
import { serve } from '@ptp/protocol/server';
import { createLogger } from '@ptp/service-kit/log';
import { LlamaCppEngine } from '../../engine/src/llama-cpp/engine.ts';
import { type LoadedGguf, loadGguf } from '../../engine/src/llama-cpp/model.ts';
import { modelInfoOf, PairClient } from '../../gateway/src/clients/pair-client.ts';
import { PairGenerator } from '../../gateway/src/decode/generate.ts';
import type { Streams, VerifyStream } from '../../gateway/src/decode/ports.ts';
import type { GenerationRequest, StepStats } from '../../gateway/src/decode/types.ts';
import { verifierService } from '../../verifier/src/service.ts';
import { Verifier } from '../../verifier/src/verifier.ts';
import { REFERENCE } from '../passes.ts';
import { median, sum } from '../statistics.ts';
import { countOptions, type EngineOptions, engineOptions, integerOption, suite } from '../suite.ts';

/** Length of the prompt in tokens. */
const PROMPT = 16;

type Setting = Pick<GenerationRequest, 'sampling' | 'logprobs'>;
const SETTINGS: Readonly<Record<string, Setting>> = {
  greedy: { sampling: { ...defaultSampling, temperature: 0 } },
  'top-k 50': { sampling: REFERENCE },
  'no top-k': { sampling: { ...REFERENCE, topK: 0 } },
  'top-k 50, log-probabilities': { sampling: REFERENCE, logprobs: true },
};

interface Options extends EngineOptions {
  readonly positions: number;
  readonly sequences: number;
  readonly tokens: number;
}

/**
 * Splits the time of a step with a GGUF file. Gateway and verifier share a process, so that all times come from one
 * clock, and talk over gRPC as usual. Random tokens are the drafts.
 */
export const step = suite<Options>(
  'step',
  "Measure where a step's time with a GGUF file goes: llama_decode, candidates, picks, gRPC and the decode loop",
  [
    ...engineOptions('GGUF file'),
    integerOption('--positions <n>', 'tokens in a verified block, including the last committed token', 9, 2),
    ...countOptions({ sequences: 8, tokens: 16 }),
  ],
  async ({ models, positions, sequences, tokens, threads }) => {
    // Random drafts are hardly ever accepted.
    const contextLength = PROMPT + 2 * tokens + positions;
    const manifest = await loadManifest(models, contextLength);
    const gguf = await loadGguf({ dir: models, threads, contextLength, sequences: 1 });
    const clock = instrument(gguf);
    const services = await startVerifier(new LlamaCppEngine(gguf, 0), manifest);
    try {
      const rows = [];
      for (const [name, setting] of Object.entries(SETTINGS)) {
        for (const count of [1, positions]) {
          const steps = await measure(services.client, clock, setting, { positions: count, sequences, tokens });
          rows.push({ setting: name, positions: count, steps: steps.length, ...figures(steps) });
          console.error(JSON.stringify(rows.at(-1)));
        }
      }
      return { model: manifest.id, vocabulary: manifest.sizes.vocab, threads, rows };
    } finally {
      await services.stop();
    }
  },
);

/** Time in milliseconds spent in node-llama-cpp since the last reset: in llama_decode, and in whole evaluations. */
interface Clock {
  decode: number;
  evaluate: number;
}

/** Measures calls of node-llama-cpp. The call of llama_decode is one of its internals (3.22.1). */
function instrument({ context }: LoadedGguf): Clock {
  const clock: Clock = { decode: 0, evaluate: 0 };
  const internals = context as unknown as { _ctx: object };
  internals._ctx = measured(internals._ctx, 'decodeBatch', (millis) => (clock.decode += millis));
  const getSequence = context.getSequence.bind(context);
  context.getSequence = () => measured(getSequence(), 'controlledEvaluate', (millis) => (clock.evaluate += millis));
  return clock;
}

/** Returns an object that reports the duration of each call of a method in milliseconds. */
function measured<Owner extends object>(owner: Owner, method: string, report: (millis: number) => void): Owner {
  return new Proxy(owner, {
    get(_, name) {
      const value = Reflect.get(owner, name, owner);
      if (typeof value !== 'function') return value;
      if (name !== method) return value.bind(owner);
      return async (...args: unknown[]) => {
        const began = performance.now();
        const result = await value.apply(owner, args);
        report(performance.now() - began);
        return result;
      };
    },
  });
}

async function startVerifier(engine: LlamaCppEngine, manifest: Manifest) {
  const folder = await mkdtemp(join(tmpdir(), 'ptp-step-'));
  const address = `unix:${join(folder, 'verifier.sock')}`;
  const logger = createLogger('bench', { PTP_LOG_LEVEL: 'warn' });
  const limits = { draft: 64, prefillChunk: 128, batchTokens: 256, sequences: 1, queue: 1 };
  const services = [verifierService(new Verifier(engine, limits), modelMessage(manifest), true)];
  const server = await serve({ address, logger, services });
  const timeouts = { recoveryMs: 0, draftTimeoutMs: 1000, draftLength: 8, verifyTimeoutMs: 120_000 };
  const client = new PairClient({
    model: modelInfoOf(manifest),
    verifiers: [address],
    drafters: [],
    logger,
    ...timeouts,
  });
  const stop = async () => {
    client.close();
    await server.close(1000);
    await engine.dispose();
    await rm(folder, { recursive: true });
  };
  await client.ready(timeouts.verifyTimeoutMs);
  return { client, stop };
}

type Parts = Readonly<Record<'decode' | 'candidates' | 'picks' | 'grpc' | 'gateway', number>>;

/** Decodes sequences, of which the first one is a warm-up. @returns the parts of each step in microseconds */
async function measure(
  client: PairClient,
  clock: Clock,
  setting: Setting,
  { positions, sequences, tokens }: Pick<Options, 'positions' | 'sequences' | 'tokens'>,
): Promise<Parts[]> {
  const generator = new PairGenerator(withDrafts(client, positions - 1), { length: 1, budget: 1, mode: 'plain' });
  const steps: Parts[] = [];
  for (let seed = 0; seed <= sequences; seed++) {
    const prompt = randomTokens(BigInt(seed), PROMPT, client.model.vocabulary);
    const request = { ...setting, prompt, seed: BigInt(seed), maxTokens: tokens, ignoreEndOfText: true };
    for await (const { stats } of generator.generate(request, new AbortController().signal)) {
      if (seed > 0 && stats.step > 0) steps.push(partsOf(stats, clock)); // The first step includes the prompt.
      Object.assign(clock, { decode: 0, evaluate: 0 });
    }
  }
  return steps;
}

/**
 * Returns services that verify random drafts of a fixed length. The decode loop does not see these drafts, because it
 * would learn to verify shorter ones.
 */
function withDrafts(client: PairClient, length: number): Streams {
  let draws = 0n;
  const verify: Streams['verify'] = (request, context) => {
    const stream = client.verify(request, context);
    const step: VerifyStream['step'] = async (call) => {
      const block = randomTokens((1n << 32n) | draws++, length, client.model.vocabulary);
      const verdict = await stream.step({ ...call, block });
      return verdict && { ...verdict, accepted: 0 };
    };
    return { opened: () => stream.opened(), step, close: () => stream.close() };
  };
  return { model: client.model, health: () => client.health(), verify, draft: () => undefined };
}

function partsOf({ stepMicros, verifyMicros, verifyRunMicros }: StepStats, clock: Clock): Parts {
  const [decode, evaluate] = [clock.decode * 1000, clock.evaluate * 1000];
  return {
    decode,
    candidates: evaluate - decode,
    picks: verifyRunMicros - evaluate,
    grpc: verifyMicros - verifyRunMicros,
    gateway: stepMicros - verifyMicros,
  };
}

/** Returns the median of each part in microseconds, and the median share of the others in the time of `decode`. */
function figures(steps: readonly Parts[]): object {
  const p50 = (part: keyof Parts) => Math.round(median(steps.map((each) => each[part])));
  const beyond = steps.map(({ decode, ...others }) => sum(Object.values(others)) / decode);
  return {
    micros_p50: {
      decode: p50('decode'),
      candidates: p50('candidates'),
      picks: p50('picks'),
      grpc: p50('grpc'),
      gateway: p50('gateway'),
    },
    beyond_decode: Number(median(beyond).toFixed(3)),
  };
}
