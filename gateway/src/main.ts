import { checkFiles, loadManifest } from '@ptp/core/engine/manifest.ts';
import { type Address, settings } from '@ptp/core/env.ts';
import { type ErrorCode, PtpError } from '@ptp/core/errors.ts';
import { runService } from '@ptp/core/lifecycle.ts';
import { serve } from '@ptp/core/rpc/server.ts';
import { loadTls } from '@ptp/core/rpc/tls.ts';
import { startMetrics } from '@ptp/core/telemetry/metrics.ts';
import { attribute } from '@ptp/core/telemetry/spans.ts';
import { startTracing } from '@ptp/core/telemetry/tracing.ts';
import type { FastifyInstance } from 'fastify';
import { loadChatTemplate } from './api/chat.ts';
import { Admission } from './door/admission.ts';
import { loadApiKeys } from './door/api-keys.ts';
import { loadDoorTls } from './door/door-tls.ts';
import { generationService } from './door/grpc.ts';
import { createHttp } from './door/http.ts';
import { Grammars } from './grammar/grammars.ts';
import { gatewayMetrics } from './loop/gateway-metrics.ts';
import { PairGenerator } from './loop/generate.ts';
import { MeteredGenerator } from './loop/metered-generator.ts';
import { pairFacts } from './services/pair.ts';
import { Services } from './services/services.ts';
import type { Streams } from './services/streams.ts';
import { gatewaySettings } from './settings.ts';
import { loadTokenizer } from './text/tokenizer.ts';
import { RecordedGenerator } from './traces/recorded-generator.ts';
import { RecordedStreams } from './traces/recorded-streams.ts';
import { TraceStore } from './traces/trace-store.ts';
import { ContentStreams, contentAsked } from './traces/traced-content.ts';

await runService('gateway', async (logger, onStop) => {
  const config = settings(gatewaySettings, process.env);
  const tracing = await startTracing('ptp-gateway', undefined, config.traceSlowMillis);
  onStop(() => tracing.stop());
  const manifest = await loadManifest(config.models);
  const drafts = manifest.drafter !== undefined || config.draftModel !== '';
  await checkFiles(config.models, manifest, ['tokenizer.json']);
  const [tokenizer, chatTemplate] = await Promise.all([loadTokenizer(config.models), loadChatTemplate(config.models)]);
  const metrics = await startMetrics('ptp-gateway', manifest.id);
  onStop(() => metrics.stop());
  const counted = gatewayMetrics(metrics.meter);
  const services = new Services({
    facts: pairFacts(manifest),
    verifiers: config.verifier.map(({ target }) => target),
    drafters: drafts ? config.drafter.map(({ target }) => target) : [],
    draftTimeoutMs: config.draftTimeoutMillis,
    verifyTimeoutMs: config.verifyTimeoutMillis,
    recoveryMs: config.recoverySeconds * 1000,
    onVerifierLoss: () => counted.verifierLosses.add(1),
    logger,
    tls: await loadTls(config),
  });
  onStop(() => services.close());
  const limits = {
    length: config.draftLength,
    budget: config.draftBudget,
    mode: config.draftMode,
    lookup: config.promptLookup,
    ahead: config.draftAhead,
  };
  const traces = config.tracesKept > 0 ? new TraceStore(config.tracesKept) : undefined;
  const streams = contentAsked(process.env) ? new ContentStreams(services, tokenizer) : services;
  const loop = (over: Streams) => new PairGenerator(over, limits);
  const recorded = traces ? new RecordedGenerator(traces, streams, loop) : loop(new RecordedStreams(streams));
  const generator = new MeteredGenerator(recorded, counted, metrics.meter, drafts);
  const onRefusal = (code: ErrorCode) => counted.refusals.add(1, { [attribute.errorType]: code });
  const grammars = new Grammars(tokenizer, generator.facts);
  const admission = new Admission(config.maxStreams);
  const keys = await loadApiKeys(config.apiKeys, gatewaySettings.apiKeys.name);

  const door = await loadDoorTls(config);
  const grpc = await serve({
    address: config.grpcListen.target,
    setting: gatewaySettings.grpcListen.name,
    logger,
    tls: door?.grpc,
    stallMillis: config.stallMillis,
    services: [generationService({ generator, tokenizer, grammars, admission, keys, onRefusal })],
  });
  const { exposition } = metrics;
  const http = await createHttp({
    traces,
    exposition,
    onRefusal,
    generator,
    tokenizer,
    grammars,
    chatTemplate,
    admission,
    keys,
    settings: config,
    https: door?.https,
    logger,
  });
  onStop(() => Promise.all([grpc.close(config.drainSeconds * 1000), closeHttp(http, config.drainSeconds * 1000)]));
  await http.listen(listenOptions(config.listen)).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EADDRINUSE') throw error;
    const setting = gatewaySettings.listen.name;
    throw new PtpError('failed_precondition', `${config.listen.target} is taken: set ${setting} to another one`, {
      field: setting,
      cause: error,
    });
  });
});

function listenOptions(address: Address): { path: string } | { host: string; port: number } {
  return 'path' in address ? { path: address.path } : { host: address.host, port: address.port };
}

/** Streams under way may end by themselves, for a while. */
function closeHttp(http: FastifyInstance, graceMs: number): Promise<void> {
  const cut = setTimeout(() => http.server.closeAllConnections(), graceMs);
  return http.close().finally(() => clearTimeout(cut));
}
