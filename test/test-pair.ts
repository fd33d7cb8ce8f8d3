import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openDraftEngine, openDraftModel, openTargetEngine } from '@ptp/engine/open-engine';
import { FakeDraftEngine, type FakeDraftOptions, FakeTargetEngine } from '@ptp/engine/testing/fake-engine';
import type { DraftEngine, DraftOutput, TargetEngine } from '@ptp/engine/types';
import { loadManifest } from '@ptp/protocol/manifest';
import { type RunningServer, serve } from '@ptp/protocol/server';
import { createLogger } from '@ptp/service-kit/log';
import { Drafter } from '../drafter/src/drafter.ts';
import { drafterService } from '../drafter/src/service.ts';
import { modelInfoOf, PairClient, type PairClientOptions } from '../gateway/src/clients/pair-client.ts';
import { PairGenerator } from '../gateway/src/decode/generate.ts';
import type { DraftLimits } from '../gateway/src/decode/types.ts';
import { verifierService } from '../verifier/src/service.ts';
import { Verifier } from '../verifier/src/verifier.ts';

export const silent = createLogger('test', { PTP_LOG_LEVEL: 'silent' });
/**
 * Context length of GGUF targets. It is short, because llama.cpp allocates the caches of all sequences at the start.
 */
const GGUF_CONTEXT = 512;
const scheduling = { prefillChunk: 16, batchTokens: 64, sequences: 64, queue: 64 };

export interface TestPairOptions {
  readonly draftTimeoutMs?: number;
  readonly verifyTimeoutMs?: number;
  /** Maximum time in milliseconds that a stream waits for another verifier. Default: 5,000. */
  readonly recoveryMs?: number;
  /** Number of verifiers, all with the same engine. Default: 1. */
  readonly verifiers?: number;
  readonly limits?: DraftLimits;
  /** Model id that the services announce. */
  readonly modelId?: string;
  /** Maximum size in bytes of each engine's prefix cache. Default: 0. */
  readonly prefixCacheBytes?: number;
  /** Maximum number of tokens in a sequence. Default: 0, which means the maximum of the model. */
  readonly contextLength?: number;
  /** Folder of a complete model that drafts instead of the pair's drafter. */
  readonly draftModel?: string;
}

export interface FakePairOptions extends TestPairOptions, FakeDraftOptions {
  /** Duration of a draft run in milliseconds. Default: the same as a target run. */
  readonly draftLatencyMs?: number;
  /** Returns an additional delay of a draft run in milliseconds. Called for each run. */
  readonly delayMs?: () => number;
  /** Function that changes the drafter's output. */
  readonly spoil?: (output: DraftOutput) => DraftOutput;
  /** End-of-text tokens, in addition to 0. */
  readonly stopTokens?: readonly number[];
}

type PairModel = PairClientOptions['model'];

/** Runs the real services, streams and decode loop in this process, over gRPC on Unix sockets. */
export class TestPair<Target extends TargetEngine = TargetEngine, Draft extends DraftEngine = DraftEngine> {
  readonly target: Target;
  draft: Draft;
  readonly addresses: { verifier: string; drafter: string };
  readonly services: PairClient;
  readonly generator: PairGenerator;
  readonly #model: PairModel;
  readonly #options: TestPairOptions;
  readonly #openDraft: () => Promise<Draft>;
  readonly #folder: string;
  readonly #verifierServers: RunningServer[] = [];
  #drafterServer: RunningServer | undefined;

  /** Starts with engines that compute tokens with a hash function (fake-engine.ts). */
  static async fake(
    options: FakePairOptions = {},
    readyMs = 5000,
  ): Promise<TestPair<FakeTargetEngine, FakeDraftEngine>> {
    const target = new FakeTargetEngine(options);
    const { vocabulary, contextLength } = target.info;
    const { stopTokens = [] } = options;
    const tokenizerSha256 = 'f'.repeat(64);
    const model = { modelId: 'fake', vocabulary, contextLength, endOfText: 0, stopTokens, tokenizerSha256 };
    const latencyMs = options.draftLatencyMs ?? options.latencyMs ?? 0;
    const openDraft = async () => {
      const engine = new FakeDraftEngine({ maxBranchLength: 8, ...options, latencyMs });
      const { spoil = (output) => output, delayMs = () => 0 } = options;
      const run = engine.run.bind(engine);
      engine.run = async (slots) => {
        const { outputs, runMicros } = await run(slots);
        const delay = delayMs();
        if (delay > 0) await sleep(delay);
        return { outputs: outputs.map(spoil), runMicros };
      };
      return engine;
    };
    return TestPair.#start(model, target, openDraft, options, readyMs);
  }

  /** Starts with the engines of a model folder or a GGUF file. */
  static async onnx(dir: string, options: TestPairOptions = {}): Promise<TestPair> {
    const model = modelInfoOf(await loadManifest(dir, options.contextLength));
    const { prefixCacheBytes = 0, draftModel, contextLength = 0 } = options;
    const engine = { dir, threads: 1, prefixCacheBytes, contextLength };
    const openDraft = async () =>
      draftModel ? openDraftModel({ ...engine, dir: draftModel }, dir, 'draftModel') : openDraftEngine(engine);
    return TestPair.#start(model, await openTargetEngine(engine), openDraft, options, 5000);
  }

  /** Starts with a GGUF file as the target. The drafter of a folder with the same tokens drafts for it. */
  static async gguf(path: string, drafterFolder: string, options: TestPairOptions = {}): Promise<TestPair> {
    const model = modelInfoOf(await loadManifest(path, GGUF_CONTEXT));
    const { prefixCacheBytes = 0 } = options;
    const limits = { threads: 1, contextLength: GGUF_CONTEXT, sequences: scheduling.sequences };
    const target = await openTargetEngine({ dir: path, prefixCacheBytes, ...limits });
    const openDraft = () => openDraftEngine({ dir: drafterFolder, prefixCacheBytes, contextLength: GGUF_CONTEXT });
    return TestPair.#start(model, target, openDraft, options, 5000);
  }

  /**
   * Starts with engines in other processes. Their model is a Hugging Face folder.
   *
   * @param engines addresses. The drafter's engine runs a PTP drafter, or the whole model in `options.draftModel`
   */
  static async remote(
    dir: string,
    engines: { target: string; drafter: string },
    options: TestPairOptions = {},
  ): Promise<TestPair> {
    const { draftModel, contextLength = 0 } = options;
    const model = modelInfoOf(await loadManifest(dir, contextLength));
    const draft = { dir, address: engines.drafter, contextLength };
    const openDraft = async () =>
      draftModel ? openDraftModel({ ...draft, dir: draftModel }, dir, 'draftModel') : openDraftEngine(draft);
    const target = await openTargetEngine({ dir, address: engines.target, contextLength });
    return TestPair.#start(model, target, openDraft, options, 5000);
  }

  static async #start<T extends TargetEngine, D extends DraftEngine>(
    model: PairModel,
    target: T,
    openDraft: () => Promise<D>,
    options: TestPairOptions,
    readyMs: number,
  ): Promise<TestPair<T, D>> {
    const folder = await mkdtemp(join(tmpdir(), 'ptp-pair-'));
    const pair = new TestPair(model, target, await openDraft(), openDraft, options, folder);
    try {
      const verifiers = pair.#verifierAddresses().map((_, i) => pair.startVerifier(i));
      await Promise.all([...verifiers, pair.#serveDrafter()]);
      await pair.services.ready(readyMs);
    } catch (error) {
      await pair.stop();
      throw error;
    }
    return pair;
  }

  private constructor(
    model: PairModel,
    target: Target,
    draft: Draft,
    openDraft: () => Promise<Draft>,
    options: TestPairOptions,
    folder: string,
  ) {
    this.#model = model;
    this.target = target;
    this.draft = draft;
    this.#openDraft = openDraft;
    this.#options = options;
    this.#folder = folder;
    this.addresses = { verifier: `unix:${folder}/verifier.sock`, drafter: `unix:${folder}/drafter.sock` };
    this.services = new PairClient({
      model,
      verifiers: this.#verifierAddresses(),
      drafters: [this.addresses.drafter],
      recoveryMs: options.recoveryMs ?? 5000,
      draftTimeoutMs: options.draftTimeoutMs ?? 2000,
      draftLength: 8,
      verifyTimeoutMs: options.verifyTimeoutMs ?? 10_000,
      logger: silent,
    });
    this.generator = new PairGenerator(
      this.services,
      options.limits ?? { length: 5, budget: 16, mode: 'overlap', ahead: 4 },
    );
  }

  /** Stops a verifier. Streams that have not ended after `graceMs` break, as when a process is killed. */
  async stopVerifier(index = 0, graceMs = 0): Promise<void> {
    await this.#verifierServers[index]?.close(graceMs);
  }

  async startVerifier(index = 0): Promise<void> {
    const address = this.#verifierAddresses()[index] as string;
    const verifier = new Verifier(this.target, { draft: 16, ...scheduling });
    const service = verifierService(verifier, this.#served(), true);
    this.#verifierServers[index] = await serve({ address, logger: silent, services: [service] });
  }

  #verifierAddresses(): string[] {
    const { verifiers = 1 } = this.#options;
    return Array.from({ length: verifiers }, (_, i) =>
      i === 0 ? this.addresses.verifier : `${this.addresses.verifier}.${i}`,
    );
  }

  async stopDrafter(): Promise<void> {
    await this.#drafterServer?.close(0);
    await this.draft.dispose();
  }

  /** Starts the drafter again with a new engine, as when a process is restarted. */
  async restartDrafter(): Promise<void> {
    this.draft = await this.#openDraft();
    await this.#serveDrafter();
  }

  async stop(): Promise<void> {
    this.services.close();
    await Promise.all([...this.#verifierServers, this.#drafterServer].map((server) => server?.close(0)));
    await Promise.all([this.target.dispose(), this.draft.dispose()]);
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #serveDrafter(): Promise<void> {
    const drafter = new Drafter(this.draft, { budget: 64, block: 16, ...scheduling });
    const service = drafterService(drafter, this.#served());
    this.#drafterServer = await serve({ address: this.addresses.drafter, logger: silent, services: [service] });
  }

  #served() {
    const { modelId, tokenizerSha256, vocabulary, contextLength } = this.#model;
    return { modelId: this.#options.modelId ?? modelId, tokenizerSha256, vocabularySize: vocabulary, contextLength };
  }
}
