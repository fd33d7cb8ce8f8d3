/** Runs drafter, verifier and gateway as separate processes until Ctrl-C. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { get } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DescService } from '@bufbuild/protobuf';
import type { Tls } from '@ptp/protocol/credentials';
import { DrafterService } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { VerifierService } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import { checkHealth } from '@ptp/protocol/health';
import { settings } from '@ptp/service-kit/settings';
import { loadTls, tlsSettings } from '@ptp/service-kit/tls-settings';
import { localAddresses } from './local-address.ts';
import type { Style } from './log-lines.ts';
import { metricsAddresses } from './metrics-addresses.ts';
import { sayReady } from './start-banner.ts';
import { type Engines, hasDrafter, prepareEngines } from './start-engine.ts';
import { type Models, prepareModels } from './start-model.ts';
import { checkEnvironment, environment } from './start-options.ts';
import { divideThreads } from './start-threads.ts';
import { type Service, Supervisor, say } from './supervisor.ts';

/** A gRPC service is ready when the standard health service reports SERVING. */
function grpcService(name: Service['name'], style: Style, address: string, service: DescService, tls?: Tls): Service {
  const isReady = async () => (await checkHealth(address, service, { deadlineMs: 1_000 }, tls)) === 'SERVING';
  return { name, style, isReady };
}

function urlOf({ host, port }: { host: string; port: number }, scheme: string): string {
  if (host === '0.0.0.0' || host === '::') return `${scheme}://127.0.0.1:${port}`; // A client cannot connect to a wildcard address.
  return `${scheme}://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

async function answersOk(url: string): Promise<boolean> {
  if (url.startsWith('https:')) {
    // This script started the server, so its certificate may name any host.
    const request = get(url, { rejectUnauthorized: false, timeout: 1_000 });
    const [response] = await once(request, 'response');
    response.resume();
    return response.statusCode === 200;
  }
  const response = await fetch(url, { signal: AbortSignal.timeout(1_000) });
  await response.body?.cancel();
  return response.ok;
}

/** Starts the services and waits for their end. @returns the exit status */
export async function startServices(): Promise<number> {
  const { env, flags } = environment();
  const http = await checkEnvironment(env);
  const models = await prepareModels(env, flags.engine);
  const sockets = await mkdtemp(join(tmpdir(), 'ptp-')); // The folder has mode 0700.
  try {
    const addresses = await localAddresses(sockets, ['verifier', 'drafter', 'target', 'draft']);
    const engines = await prepareEngines(env, flags, models, addresses);
    return await supervise(env, http, models, engines, addresses);
  } finally {
    await rm(sockets, { recursive: true, force: true });
  }
}

/** Addresses for the services without one in their settings. */
type Addresses = Readonly<Record<'verifier' | 'drafter', string>>;

/** Returns the services that `models` needs, and sets their addresses in `env`. */
async function servicesOf(
  env: NodeJS.ProcessEnv,
  url: string,
  models: Models,
  engines: Engines,
  addresses: Addresses,
): Promise<Service[]> {
  env.PTP_VERIFIERS ||= addresses.verifier;
  const tls = await loadTls(settings(tlsSettings, env));
  const metrics = metricsAddresses(env);
  const threads = await divideThreads(env, models, engines.target);
  const gateway: Service = {
    name: 'gateway',
    style: 'green',
    // Without it, glibc keeps 60 MB that llama.cpp frees after it has read a large vocabulary.
    env: { MALLOC_TRIM_THRESHOLD_: env.MALLOC_TRIM_THRESHOLD_ ?? '131072' },
    isReady: () => answersOk(`${url}/readyz`),
  };
  const services = [
    {
      ...grpcService('verifier', 'cyan', env.PTP_VERIFIERS, VerifierService, tls),
      env: { ...metrics.verifier, ...threads.verifier, PTP_LISTEN: env.PTP_VERIFIERS, PTP_ENGINE: engines.target },
    },
    gateway,
  ];
  if (!hasDrafter(models, engines)) {
    delete env.PTP_DRAFTERS; // The gateway would wait for a drafter.
    return services;
  }
  env.PTP_DRAFTERS ||= addresses.drafter;
  const drafter = {
    ...grpcService('drafter', 'magenta', env.PTP_DRAFTERS, DrafterService, tls),
    env: { ...metrics.drafter, ...threads.drafter, PTP_LISTEN: env.PTP_DRAFTERS, PTP_ENGINE: engines.drafter },
  };
  return [drafter, ...services];
}

/** Runs the workers and the services until a signal or a failure. @returns the exit status */
async function supervise(
  env: NodeJS.ProcessEnv,
  http: { host: string; port: number },
  models: Models,
  engines: Engines,
  addresses: Addresses,
): Promise<number> {
  const url = urlOf(http, env.PTP_HTTP_TLS_CERT_FILE ? 'https' : 'http');
  const services = await servicesOf(env, url, models, engines, addresses);
  const supervisor = new Supervisor(env);
  let signals = 0;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => {
      signals += 1;
      say(signals === 1 ? 'stopping (Ctrl-C again to kill)' : 'killing');
      supervisor.stop(signals === 1 ? 'SIGTERM' : 'SIGKILL');
    });
  }
  const verifier = services.find(({ name }) => name === 'verifier');
  const started = performance.now();
  const start = (group: readonly Service[]) => Promise.all(group.map((service) => supervisor.start(service)));
  start(engines.workers)
    .then(() => start(services.filter(({ name }) => name !== 'gateway')))
    // Started earlier, the gateway would warn that it cannot reach the others.
    .then(() => start(services.filter(({ name }) => name === 'gateway')))
    .then(() => {
      const seconds = (performance.now() - started) / 1000;
      return signals === 0
        ? sayReady({ env: { ...env, ...verifier?.env }, models, engines, url, pids: supervisor.pids, seconds })
        : undefined;
    })
    .catch((error) => supervisor.fail(error));
  return supervisor.ended;
}
