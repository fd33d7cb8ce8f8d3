import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FakeDraftEngine, type FakeDraftOptions, FakeTargetEngine } from '@ptp/core/engine/fake-engine.ts';
import { DrafterService } from '@ptp/core/gen/ptp/v1/drafter_pb.ts';
import { VerifierService } from '@ptp/core/gen/ptp/v1/verifier_pb.ts';
import { createLogger } from '@ptp/core/log.ts';
import { implement, type RunningServer, serve } from '@ptp/core/rpc/server.ts';
import { Drafter } from '../drafter/src/draft.ts';
import type { DraftLimits } from '../gateway/src/controller.ts';
import { PairGenerator } from '../gateway/src/generate.ts';
import { Services } from '../gateway/src/streams.ts';
import { Verifier } from '../verifier/src/verify.ts';

const logger = createLogger('test', { PTP_LOG_LEVEL: 'silent' });
const scheduling = { prefillChunk: 16, batchTokens: 64, queue: 64 };

export interface FakePairOptions extends FakeDraftOptions {
  readonly draftTimeoutMs?: number;
  /** Latency of the drafter alone, milliseconds. */
  readonly draftLatencyMs?: number;
  readonly limits?: DraftLimits;
  /** What the verifier says it serves. */
  readonly modelId?: string;
}

/** The real services, streams and loop over gRPC, with engines whose language is a hash function (fake-engine.ts). */
export class FakePair {
  readonly target: FakeTargetEngine;
  draft: FakeDraftEngine;
  readonly addresses: { verifier: string; drafter: string };
  readonly services: Services;
  readonly generator: PairGenerator;
  readonly #options: FakePairOptions;
  readonly #folder: string;
  #verifierServer: RunningServer | undefined;
  #drafterServer: RunningServer | undefined;

  static async start(options: FakePairOptions = {}, readyMs = 5000): Promise<FakePair> {
    const pair = new FakePair(options, await mkdtemp(join(tmpdir(), 'ptp-pair-')));
    await Promise.all([pair.startVerifier(), pair.startDrafter()]);
    try {
      await pair.services.ready(readyMs);
    } catch (error) {
      await pair.stop();
      throw error;
    }
    return pair;
  }

  private constructor(options: FakePairOptions, folder: string) {
    this.#options = options;
    this.#folder = folder;
    this.target = new FakeTargetEngine(options);
    this.draft = this.#draftEngine();
    this.addresses = { verifier: `unix:${folder}/verifier.sock`, drafter: `unix:${folder}/drafter.sock` };
    this.services = new Services({
      facts: {
        modelId: 'fake',
        vocabulary: this.target.facts.vocabulary,
        contextLength: this.target.facts.contextLength,
        endOfText: 0,
        tokenizerSha256: 'f'.repeat(64),
      },
      verifierAddress: this.addresses.verifier,
      drafterAddress: this.addresses.drafter,
      draftTimeoutMs: options.draftTimeoutMs ?? 2000,
      logger,
    });
    this.generator = new PairGenerator(this.services, options.limits ?? { length: 5, budget: 16 });
  }

  async startVerifier(): Promise<void> {
    const verifier = new Verifier(this.target, { draft: 16, ...scheduling });
    this.#verifierServer = await serve({
      address: this.addresses.verifier,
      logger,
      services: [
        implement(VerifierService, {
          getTarget: () => ({ model: this.#model() }),
          verify: (requests, { signal }) => verifier.verify(requests, signal),
        }),
      ],
    });
  }

  /** With a fresh engine, as a restarted process has. */
  async startDrafter(): Promise<void> {
    this.draft = this.#draftEngine();
    const drafter = new Drafter(this.draft, { budget: 64, block: 16, ...scheduling });
    this.#drafterServer = await serve({
      address: this.addresses.drafter,
      logger,
      services: [
        implement(DrafterService, {
          getDrafter: () => ({ model: this.#model(), maxBranchLength: this.draft.maxBranchLength }),
          draft: (requests, { signal }) => drafter.draft(requests, signal),
        }),
      ],
    });
  }

  async stopDrafter(): Promise<void> {
    await this.#drafterServer?.close(0);
  }

  async stop(): Promise<void> {
    this.services.close();
    await Promise.all([this.#verifierServer?.close(0), this.#drafterServer?.close(0)]);
    await rm(this.#folder, { recursive: true, force: true });
  }

  #draftEngine(): FakeDraftEngine {
    return new FakeDraftEngine({
      maxBranchLength: 8,
      ...this.#options,
      latencyMs: this.#options.draftLatencyMs ?? this.#options.latencyMs ?? 0,
    });
  }

  #model() {
    const { vocabulary, contextLength } = this.target.facts;
    return {
      modelId: this.#options.modelId ?? 'fake',
      tokenizerSha256: 'f'.repeat(64),
      vocabularySize: vocabulary,
      contextLength,
    };
  }
}
