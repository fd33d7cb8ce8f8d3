import { loadManifest } from '@ptp/protocol/manifest';
import { type ImplementedService, serve } from '@ptp/protocol/server';
import { endWhen, runService } from '@ptp/service-kit/lifecycle';
import type { Logger } from '@ptp/service-kit/log';
import { serveMetrics, startMetrics } from '@ptp/service-kit/metrics';
import type { serviceSettings } from '@ptp/service-kit/service-settings';
import { type Address, type Setting, type SettingsOf, type SettingsTable, settings } from '@ptp/service-kit/settings';
import { loadTls } from '@ptp/service-kit/tls-settings';
import { startTracing } from '@ptp/service-kit/tracing';
import type { Registry } from 'prom-client';
import { engineMetrics } from './engine-metrics.ts';
import type { RunObserver } from './scheduler.ts';
import { type ModelMessage, modelMessage } from './status-messages.ts';
import type { Engine, EngineOptions } from './types.ts';

type CommonSettings = typeof serviceSettings & { readonly listen: Setting<Address> };
type CommonValues = SettingsOf<CommonSettings>;

/** A process that serves one model over gRPC; it supplies the parts in which drafter and verifier differ. */
export interface ModelService<Table extends SettingsTable & CommonSettings, E extends Engine> {
  readonly name: 'drafter' | 'verifier';
  readonly settings: Table;
  openEngine(options: EngineOptions, config: SettingsOf<Table>): Promise<E>;
  implement(parts: ServiceParts<E>, config: SettingsOf<Table>): Promise<ImplementedService> | ImplementedService;
}

/** What an implementation is made from. */
export interface ServiceParts<E extends Engine> {
  readonly engine: E;
  readonly model: ModelMessage;
  readonly observe: RunObserver;
  readonly registry: Registry;
  readonly logger: Logger;
}

/**
 * Runs a model service until the process is told to end: settings, tracing, manifest, engine, metrics and server start in
 * this order and stop in reverse, the server after draining. If the engine dies, the process ends.
 */
export async function runModelService<Table extends SettingsTable & CommonSettings, E extends Engine>(
  service: ModelService<Table, E>,
): Promise<void> {
  await runService(service.name, async (logger, onStop) => {
    const values = settings(service.settings, process.env);
    const config: CommonValues = values as unknown as CommonValues;
    const tracing = await startTracing(`ptp-${service.name}`);
    onStop(() => tracing.stop());

    const manifest = await loadManifest(config.models);
    const { models: dir, threads, prefixCacheMegabytes } = config;
    const engine = await service.openEngine({ dir, threads, prefixCacheBytes: prefixCacheMegabytes * 1e6 }, values);
    onStop(() => engine.dispose());
    endWhen(engine.died, logger);

    const metrics = startMetrics(`ptp-${service.name}`, manifest.id);
    onStop(() => metrics.stop());
    for (const address of config.metrics) {
      const served = await serveMetrics(metrics, address, service.settings.metrics.name);
      onStop(() => served.stop());
    }

    const { registry } = metrics;
    const observe = engineMetrics(registry, engine);
    const model = modelMessage(manifest);
    const server = await serve({
      address: config.listen.target,
      setting: service.settings.listen.name,
      logger,
      tls: await loadTls(config),
      services: [await service.implement({ engine, model, observe, registry, logger }, values)],
    });
    onStop(() => server.close(config.drainSeconds * 1000));
  });
}
