import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { loadManifest, type Manifest } from '@ptp/protocol/manifest';
import { draftModelSetting } from '@ptp/service-kit/service-settings';
import { type Address, describeSettings, settings } from '@ptp/service-kit/settings';
import { drafterSettings } from '../drafter/src/settings.ts';
import { gatewaySettings } from '../gateway/src/settings.ts';
import { verifierSettings } from '../verifier/src/settings.ts';
import { root, StartError } from './supervisor.ts';

function flags() {
  const options = {
    models: { type: 'string' },
    'draft-model': { type: 'string' },
    port: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  } as const;
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    throw new StartError(`${(error as Error).message}; see npm start -- --help`);
  }
}

/** What the command line says, as environment of the services. */
export function environment(): NodeJS.ProcessEnv {
  const values = flags();
  if (values.help) {
    console.log(help());
    process.exit(0);
  }
  const env = { ...process.env };
  if (values.models) env.PTP_MODELS = resolve(env.INIT_CWD ?? '.', values.models);
  if (values['draft-model']) env[draftModelSetting.name] = resolve(env.INIT_CWD ?? '.', values['draft-model']);
  if (values.port) {
    const port = Number(values.port);
    if (!Number.isInteger(port) || port < 1 || port > 65534) {
      throw new StartError(`--port must be an integer in [1, 65534], got ${JSON.stringify(values.port)}`);
    }
    const { listen, grpcListen } = gatewaySettings;
    for (const [setting, value] of [
      [listen, port],
      [grpcListen, port + 1],
    ] as const) {
      env[setting.name] = (env[setting.name] || setting.default).replace(/:\d+$/, `:${value}`);
    }
  }
  return env;
}

function help(): string {
  const tables = Object.entries({ gateway: gatewaySettings, verifier: verifierSettings, drafter: drafterSettings });
  return [
    'Starts drafter, verifier and gateway, and stops them at Ctrl-C.',
    '',
    '  npm start -- [--models DIR] [--draft-model DIR] [--port N]',
    '',
    '  --models DIR       folder of the pair, or of a target alone (PTP_MODELS)',
    `  --draft-model DIR  folder of a smaller model that drafts for it (${draftModelSetting.name})`,
    `  --port N           port of the HTTP API (${gatewaySettings.listen.name}); gRPC gets the one after (${gatewaySettings.grpcListen.name})`,
    '',
    'Environment variables:',
    ...tables.map(([name, table]) => `\n${name}\n${describeSettings(table)}`),
  ].join('\n');
}

/** Fails early and clearly for what would end the gateway late and with a stack. */
async function checkPort(address: Address, setting: string): Promise<void> {
  if (!('port' in address)) return;
  const { host, port } = address;
  const probe = createServer();
  try {
    probe.listen(port, host);
    await once(probe, 'listening');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const problem = code === 'EADDRINUSE' ? `port ${port} is taken` : `cannot listen on ${host}:${port} (${code})`;
    throw new StartError(`${problem}: set ${setting} or --port to another one`);
  }
  probe.close();
  await once(probe, 'close');
}

async function modelsIn(folder: string, settings: string): Promise<Manifest> {
  const dir = resolve(root, folder);
  if (existsSync(join(dir, 'manifest.json'))) return loadManifest(dir);
  throw new StartError(`${folder} holds no model (manifest.json): set ${settings} to a folder that does`);
}

/**
 * Fails early and clearly for what would end a service late.
 *
 * @returns where the gateway will serve HTTP, and whether there is a drafter to start
 * @throws StartError
 */
export async function checkEnvironment(
  env: NodeJS.ProcessEnv,
): Promise<{ http: { host: string; port: number }; drafts: boolean }> {
  const { models, draftModel, listen, grpcListen } = settings(gatewaySettings, env);
  if (!('port' in listen)) throw new StartError(`npm start needs host:port in ${gatewaySettings.listen.name}`);
  const { drafter } = await modelsIn(models, 'PTP_MODELS or --models');
  if (draftModel) await modelsIn(draftModel, `${draftModelSetting.name} or --draft-model`);
  await checkPort(listen, gatewaySettings.listen.name);
  await checkPort(grpcListen, gatewaySettings.grpcListen.name);
  return { http: listen, drafts: draftModel !== '' || drafter !== undefined };
}
