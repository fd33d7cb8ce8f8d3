import { loadManifest } from '@ptp/protocol/manifest';
import { type ImplementedService, serve } from '@ptp/protocol/server';
import { endWhen, runService } from '@ptp/service-kit/lifecycle';
import type { Logger } from '@ptp/service-kit/log';
import { budgetFields } from '@ptp/service-kit/memory';
import { serveMetrics, startMetrics } from '@ptp/service-kit/metrics';
import type { serviceSettings } from '@ptp/service-kit/service-settings';
import { type Address, type Setting, type SettingsOf, type SettingsTable, settings } from '@ptp/service-kit/settings';
import { loadTls, logTls } from '@ptp/service-kit/tls-settings';
import { startTracing } from '@ptp/service-kit/tracing';
import type { Registry } from 'prom-client';
import { engineMetrics } from './engine-metrics.ts';
import { type ModelMemory, modelBudget, SEQUENCE_LIMIT } from './memory-budget.ts';
import { prefixCacheLimit } from './prefix-blocks.ts';
import { BATCH_TOKENS, type RunObserver, type ServiceLimits } from './scheduler.ts';
import { type ModelMessage, modelMessage } from './status-messages.ts';
import type { Engine, EngineOptions } from './types.ts';

/** Maximum number of prompt tokens in one run. The steps of other sequences can run between two chunks of a prompt. */
const PREFILL_CHUNK = 128;
/**
 * Names that the certificate of a client must have over mutual TLS, as a DNS name (SAN) or an organizational unit (OU).
 */
const CLIENTS = ['gateway'];
/** Maximum number of waiting slots, unless more sequences may be open. */
const QUEUE_LIMIT = 256;

type CommonSettings = typeof serviceSettings & { readonly listen: Setting<Address> };
type CommonValues = SettingsOf<CommonSettings>;

/** The parts in which drafter and verifier differ. */
export interface ModelService<Table extends SettingsTable & CommonSettings, E extends Engine> {
  readonly name: 'drafter' | 'verifier';
  readonly settings: Table;
  /** Returns the part of a model that the engine runs, and the path of this model. */
  served(config: SettingsOf<Table>): { readonly kind: ModelMemory['kind']; readonly path: string };
  openEngine(options: EngineOptions, config: SettingsOf<Table>): Promise<E>;
  implement(parts: ServiceParts<E>, config: SettingsOf<Table>): Promise<ImplementedService> | ImplementedService;
}

/** The parts from which a gRPC service is made. */
export interface ServiceParts<E extends Engine> {
  readonly engine: E;
  readonly model: ModelMessage;
  readonly limits: ServiceLimits;
  readonly observe: RunObserver;
  readonly registry: Registry;
  readonly logger: Logger;
}

/**
 * Runs a process that serves one model over gRPC. Settings, tracing, manifest, engine, metrics and server start in this
 * order and stop in reverse order. The server drains before it stops. If the engine dies, the process ends.
 */
export async function runModelService<Table extends SettingsTable & CommonSettings, E extends Engine>(
  service: ModelService<Table, E>,
): Promise<void> {
  await runService(service.name, async (logger, onStop) => {
    const values = settings(service.settings, process.env);
    const config = values as unknown as CommonValues;
    const tracing = await startTracing(`ptp-${service.name}`);
    onStop(() => tracing.stop());

    const { model: dir, engine: address, contextLength, threads, gpuLayers, device, sequences } = config;
    const manifest = await loadManifest(dir, contextLength);
    const { kind, path } = service.served(values);
    const own = path === dir ? manifest : await loadManifest(path, contextLength);
    const wanted = prefixCacheLimit(config.prefixCacheMegabytes, own, kind);
    const shrinks = config.prefixCacheMegabytes === 'auto';
    // `auto` counts as the CPU: if there is no GPU, the process must not load a model for which the memory is too small.
    const local = own.engine === 'onnx' && address === '' && device !== 'webgpu';
    const needed = { kind, manifest: own, sequences, prefixCacheBytes: wanted, prefixCacheShrinks: shrinks };
    const memory = local && modelBudget(needed);
    const prefixCacheBytes = memory ? memory.prefixCacheBytes : wanted;
    if (memory) logger.info({ ...budgetFields(memory), sequence_limit: memory.sequences }, 'memory budget');
    const options = { dir, address, contextLength, threads, gpuLayers, device, sequences, prefixCacheBytes, logger };
    const engine = await service.openEngine(options, values);
    onStop(() => engine.dispose());
    endWhen(engine.died, logger);

    const metrics = startMetrics(`ptp-${service.name}`, manifest.id);
    onStop(() => metrics.stop());
    let isReady = false;
    for (const address of config.metrics) {
      const served = await serveMetrics(metrics, address, service.settings.metrics.name, () => isReady);
      onStop(() => served.stop());
    }

    const limit = Math.min(memory ? memory.sequences : sequences || SEQUENCE_LIMIT, engine.info.maxSequences);
    const { registry } = metrics;
    const parts: ServiceParts<E> = {
      engine,
      model: modelMessage(manifest),
      limits: {
        prefillChunk: engine.info.prefillChunk ?? PREFILL_CHUNK,
        batchTokens: BATCH_TOKENS,
        sequences: limit,
        queue: Math.max(QUEUE_LIMIT, limit),
      },
      observe: engineMetrics(registry, engine),
      registry,
      logger,
    };
    const server = await serve({
      address: config.listen.target,
      setting: service.settings.listen.name,
      logger,
      tls: await loadTls(config, { ...logTls(logger), clients: CLIENTS }),
      services: [await service.implement(parts, values)],
    });
    isReady = true;
    onStop(() => {
      isReady = false;
      return server.close(config.drainSeconds * 1000);
    });
  });
}
