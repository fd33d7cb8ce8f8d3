import { type ErrorCode, PtpError } from '@ptp/protocol/errors';
import { checkFiles, loadManifest } from '@ptp/protocol/manifest';
import { serve } from '@ptp/protocol/server';
import { runService } from '@ptp/service-kit/lifecycle';
import { startMetrics } from '@ptp/service-kit/metrics';
import { type Address, settings } from '@ptp/service-kit/settings';
import { loadTls } from '@ptp/service-kit/tls-settings';
import { startTracing } from '@ptp/service-kit/tracing';
import type { FastifyInstance } from 'fastify';
import { Admission } from './access/admission.ts';
import { loadApiKeys } from './access/api-keys.ts';
import { createHttp } from './app.ts';
import { modelInfoOf, PairClient } from './clients/pair-client.ts';
import { PairGenerator } from './decode/generate.ts';
import type { Streams } from './decode/ports.ts';
import { Grammars } from './grammar/grammars.ts';
import { generationService } from './grpc.ts';
import { loadListenerTls } from './http/tls.ts';
import { MeteredGenerator } from './observe/metered-generator.ts';
import { gatewayMetrics } from './observe/metrics.ts';
import { RecordedGenerator } from './observe/recorded-generator.ts';
import { RecordedStreams } from './observe/recorded-streams.ts';
import { TraceStore } from './observe/trace-store.ts';
import { ContentStreams, contentAsked } from './observe/traced-content.ts';
import { gatewaySettings } from './settings.ts';
import { loadChatTemplate } from './text/chat-template.ts';
import { loadTokenizer } from './text/tokenizer.ts';

await runService('gateway', async (logger, onStop) => {
  const config = settings(gatewaySettings, process.env);
  const tracing = await startTracing('ptp-gateway');
  onStop(() => tracing.stop());
  const manifest = await loadManifest(config.models);
  const drafts = manifest.drafter !== undefined || config.draftModel !== '';
  await checkFiles(config.models, manifest, ['tokenizer.json']);
  const [tokenizer, chatTemplate] = await Promise.all([loadTokenizer(config.models), loadChatTemplate(config.models)]);
  const metrics = startMetrics('ptp-gateway', manifest.id);
  onStop(() => metrics.stop());
  const counted = gatewayMetrics(metrics.registry);
  const services = new PairClient({
    model: modelInfoOf(manifest),
    verifiers: config.verifier.map(({ target }) => target),
    drafters: drafts ? config.drafter.map(({ target }) => target) : [],
    draftTimeoutMs: config.draftTimeoutMillis,
    verifyTimeoutMs: config.verifyTimeoutMillis,
    recoveryMs: config.recoverySeconds * 1000,
    onVerifierLoss: () => counted.verifierLosses.inc(),
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
  const generator = new MeteredGenerator(recorded, counted, metrics.registry, drafts);
  const onRejection = (code: ErrorCode) => counted.refusals.inc({ error_type: code });
  const grammars = new Grammars(tokenizer, generator.model);
  const admission = new Admission(config.maxStreams);
  const keys = await loadApiKeys(config.apiKeys, gatewaySettings.apiKeys.name);

  const tls = await loadListenerTls(config);
  const grpc = await serve({
    address: config.grpcListen.target,
    setting: gatewaySettings.grpcListen.name,
    logger,
    tls: tls?.grpc,
    stallMillis: config.stallMillis,
    services: [generationService({ generator, tokenizer, grammars, admission, keys, onRejection })],
  });
  const { exposition } = metrics;
  const http = await createHttp({
    traces,
    exposition,
    onRejection,
    generator,
    tokenizer,
    grammars,
    chatTemplate,
    admission,
    keys,
    settings: config,
    https: tls?.https,
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
