import { checkFiles, loadManifest } from '@ptp/core/engine/manifest.ts';
import { type Address, settings } from '@ptp/core/env.ts';
import { PtpError } from '@ptp/core/errors.ts';
import { runService } from '@ptp/core/lifecycle.ts';
import { serve } from '@ptp/core/rpc/server.ts';
import { startTracing } from '@ptp/core/telemetry/tracing.ts';
import type { FastifyInstance } from 'fastify';
import { Admission } from './admission.ts';
import { loadApiKeys } from './api-keys.ts';
import { loadChatTemplate } from './chat.ts';
import { PairGenerator } from './generate.ts';
import { generationService } from './grpc.ts';
import { createHttp } from './http.ts';
import { pairFacts } from './pair.ts';
import { RecordedGenerator } from './recorded-generator.ts';
import { RecordedStreams } from './recorded-streams.ts';
import { Services } from './services.ts';
import { gatewaySettings } from './settings.ts';
import type { Streams } from './streams.ts';
import { loadTokenizer } from './tokenizer.ts';
import { TraceStore } from './trace-store.ts';
import { ContentStreams, contentAsked } from './traced-content.ts';

await runService('gateway', async (logger, onStop) => {
  const config = settings(gatewaySettings, process.env);
  const tracing = await startTracing('ptp-gateway', undefined, config.traceSlowMillis);
  onStop(() => tracing.stop());
  const manifest = await loadManifest(config.models);
  await checkFiles(config.models, manifest, ['tokenizer.json']);
  const [tokenizer, chatTemplate] = await Promise.all([loadTokenizer(config.models), loadChatTemplate(config.models)]);
  const services = new Services({
    facts: pairFacts(manifest),
    verifierAddress: config.verifier.target,
    drafterAddress: manifest.drafter && config.drafter.target,
    draftTimeoutMs: config.draftTimeoutMillis,
    verifyTimeoutMs: config.verifyTimeoutMillis,
    logger,
  });
  onStop(() => services.close());
  const limits = {
    length: config.draftLength,
    budget: config.draftBudget,
    mode: config.draftMode,
    lookup: config.promptLookup,
  };
  const traces = config.tracesKept > 0 ? new TraceStore(config.tracesKept) : undefined;
  const streams = contentAsked(process.env) ? new ContentStreams(services, tokenizer) : services;
  const loop = (over: Streams) => new PairGenerator(over, limits);
  const generator = traces ? new RecordedGenerator(traces, streams, loop) : loop(new RecordedStreams(streams));
  const admission = new Admission(config.maxStreams);
  const keys = await loadApiKeys(config.apiKeys, gatewaySettings.apiKeys.name);

  const grpc = await serve({
    address: config.grpcListen.target,
    setting: gatewaySettings.grpcListen.name,
    logger,
    services: [generationService({ generator, tokenizer, admission, keys })],
  });
  const http = createHttp({ generator, tokenizer, chatTemplate, admission, keys, settings: config, logger, traces });
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
