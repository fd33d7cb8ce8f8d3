import type { ErrorCode } from '@ptp/protocol/errors';
import { loadManifest } from '@ptp/protocol/manifest';
import { serve } from '@ptp/protocol/server';
import { runService } from '@ptp/service-kit/lifecycle';
import { budgetFields } from '@ptp/service-kit/memory';
import { startMetrics } from '@ptp/service-kit/metrics';
import { type SettingsOf, settings } from '@ptp/service-kit/settings';
import { loadTls, logTls } from '@ptp/service-kit/tls-settings';
import { startTracing } from '@ptp/service-kit/tracing';
import { Admission } from './access/admission.ts';
import { followApiKeys, loadApiKeys } from './access/api-keys.ts';
import { createHttp, HTTP_LIMITS } from './app.ts';
import { modelInfoOf, PairClient } from './clients/pair-client.ts';
import { DRAFT_BUDGET, STEPS_AHEAD } from './decode/controller.ts';
import { PairGenerator } from './decode/generate.ts';
import { GrammarCache } from './grammar/cache.ts';
import { generationService } from './grpc.ts';
import { closeHttp, listenHttp } from './http/listen.ts';
import { loadListenerTls } from './http/tls.ts';
import { gatewayBudget } from './memory-budget.ts';
import { gatewayMetrics, metricsObserver, watchHealth } from './observe/metrics.ts';
import { capturesContent, spanObserver } from './observe/spans.ts';
import { TraceStore } from './observe/trace-store.ts';
import { gatewaySettings, LOCAL_DRAFTER } from './settings.ts';
import { loadTextModel } from './text/text-model.ts';

/** Returns true if no other machine can reach the server, and its clients need no key. */
function isLocalOnly({ listen, apiKeys }: SettingsOf<typeof gatewaySettings>): boolean {
  return 'host' in listen && /^(localhost|127\.|::1$)/.test(listen.host) && apiKeys === '';
}

await runService('gateway', async (logger, onStop) => {
  const config = settings(gatewaySettings, process.env);
  const tracing = await startTracing('ptp-gateway');
  onStop(() => tracing.stop());

  const manifest = await loadManifest(config.model, config.contextLength);
  logger.info(budgetFields(gatewayBudget(config, manifest.sizes)), 'memory budget');
  const local = manifest.drafter !== undefined || config.draftModel !== '' ? [LOCAL_DRAFTER] : [];
  const drafters = config.drafters.length > 0 ? config.drafters.map(({ target }) => target) : local;
  const { tokenizer, chatTemplate } = await loadTextModel(config.model, manifest);

  const metrics = startMetrics('ptp-gateway', manifest.id);
  onStop(() => metrics.stop());
  const counted = gatewayMetrics(metrics.registry);

  const renewal = logTls(logger);
  const services = new PairClient({
    model: modelInfoOf(manifest),
    verifiers: config.verifiers.map(({ target }) => target),
    drafters,
    draftTimeoutMs: config.draftTimeoutSeconds === 'auto' ? 'auto' : config.draftTimeoutSeconds * 1000,
    draftLength: config.draftLength,
    verifyTimeoutMs: config.verifyTimeoutSeconds * 1000,
    recoveryMs: config.recoverySeconds * 1000,
    logger,
    tls: await loadTls(config, renewal),
  });
  onStop(() => services.close());
  const { draftLength: length, draftMode: mode } = config;
  const limits = { length, mode, budget: DRAFT_BUDGET, ahead: STEPS_AHEAD };
  const traces = config.tracesKept > 0 ? new TraceStore(config.tracesKept) : undefined;
  const spans = spanObserver(capturesContent(process.env) ? (ids) => tokenizer.decode(ids) : undefined);
  const observers = [spans, metricsObserver(counted), ...(traces ? [traces] : [])];
  const generator = new PairGenerator(services, limits, observers);
  watchHealth(metrics.registry, () => services.health(), drafters.length > 0);

  const onRejection = (code: ErrorCode) => counted.refusals.inc({ error_type: code });
  const grammars = new GrammarCache(tokenizer, generator.model);
  const admission = new Admission(config.maxStreams);
  const keys = await loadApiKeys(config.apiKeys, gatewaySettings.apiKeys.name);
  onStop(followApiKeys(keys, { path: config.apiKeys, setting: gatewaySettings.apiKeys.name, logger }));

  const shared = { generator, tokenizer, grammars, admission, keys, onRejection };
  const tls = await loadListenerTls(config, renewal);
  const grpc = await serve({
    address: config.grpcListen.target,
    setting: gatewaySettings.grpcListen.name,
    logger,
    tls: tls?.grpc,
    services: [generationService(shared)],
  });
  const http = await createHttp({
    ...shared,
    chatTemplate,
    traces,
    exposition: metrics.exposition,
    settings: { ...HTTP_LIMITS, corsOrigins: config.corsOrigins, localOnly: isLocalOnly(config) },
    https: tls?.https,
    logger,
  });
  const graceMs = config.drainSeconds * 1000;
  onStop(() => Promise.all([grpc.close(graceMs), closeHttp(http, graceMs)]));
  await listenHttp(http, config.listen, gatewaySettings.listen.name);
});
