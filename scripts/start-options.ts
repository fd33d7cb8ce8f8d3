import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { loadManifest, type Manifest } from '@ptp/protocol/manifest';
import { checkSettingNames } from '@ptp/service-kit/setting-names';
import { type Address, path, type Setting, settings } from '@ptp/service-kit/settings';
import { drafterSettings } from '../drafter/src/settings.ts';
import { gatewaySettings } from '../gateway/src/settings.ts';
import { verifierSettings } from '../verifier/src/settings.ts';
import { allFlags, commonFlags, flagOf, helpOf } from './start-help.ts';
import { root, StartError } from './supervisor.ts';

/** The environment of the services: that of this process, with the flags of the command line. */
export function environment(): NodeJS.ProcessEnv {
  const values = parseFlags();
  if (values.help || values['help-all']) {
    console.log(helpOf(values['help-all'] ? allFlags : commonFlags));
    process.exit(0);
  }
  checkSettingNames(process.env);
  const env = { ...process.env };
  for (const setting of allFlags) {
    const value = values[flagOf(setting)];
    if (typeof value !== 'string') continue;
    env[setting.name] = setting.type === path ? resolve(env.INIT_CWD ?? '.', value) : value;
  }
  if (typeof values.port === 'string') setPorts(env, values.port);
  return env;
}

function parseFlags(): Record<string, string | boolean | undefined> {
  const flags = allFlags.map((setting) => [flagOf(setting), { type: 'string' }] as const);
  const options = {
    ...Object.fromEntries(flags),
    port: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
    'help-all': { type: 'boolean' },
  } as const;
  try {
    return parseArgs({ options }).values as Record<string, string | boolean | undefined>;
  } catch (error) {
    throw new StartError(`${(error as Error).message}; see npm start -- --help`);
  }
}

function setPorts(env: NodeJS.ProcessEnv, text: string): void {
  const port = Number(text);
  if (!Number.isInteger(port) || port < 1 || port > 65534) {
    throw new StartError(`--port must be an integer in [1, 65534], got ${JSON.stringify(text)}`);
  }
  const set = ({ name, default: preset }: Setting, value: number) => {
    env[name] = (env[name] || String(preset)).replace(/:\d+$/, `:${value}`);
  };
  set(gatewaySettings.listen, port);
  set(gatewaySettings.grpcListen, port + 1);
}

/** The parts of the environment that decide which services to start. */
export interface Plan {
  readonly http: { readonly host: string; readonly port: number };
  /** False for a target that is served without a drafter. */
  readonly drafts: boolean;
}

/**
 * Checks settings, models and ports, which would otherwise fail in a service, later and less clearly.
 *
 * @throws StartError or PtpError
 */
export async function checkEnvironment(env: NodeJS.ProcessEnv): Promise<Plan> {
  const { model, draftModel, listen, grpcListen, verifiers, drafters } = settings(gatewaySettings, env);
  for (const table of [verifierSettings, drafterSettings]) settings(table, env);
  if (!('port' in listen)) throw new StartError(`npm start needs host:port in ${gatewaySettings.listen.name}`);
  requireOne('verifier', verifiers, gatewaySettings.verifiers.name);
  requireOne('drafter', drafters, gatewaySettings.drafters.name);
  const { drafter } = await modelsIn(model, `${gatewaySettings.model.name} or --model`);
  if (draftModel) await modelsIn(draftModel, `${gatewaySettings.draftModel.name} or --draft-model`);
  await checkPort(listen, gatewaySettings.listen.name);
  await checkPort(grpcListen, gatewaySettings.grpcListen.name);
  return { http: listen, drafts: draftModel !== '' || drafter !== undefined };
}

function requireOne(kind: string, list: readonly Address[], setting: string): void {
  if (list.length === 1) return;
  throw new StartError(`npm start runs one ${kind}: ${setting} must be one address, got ${list.length}`);
}

async function checkPort(address: Address, setting: string): Promise<void> {
  if (!('port' in address)) return;
  const { host, port } = address;
  const probe = createServer();
  try {
    probe.listen(port, host);
    await once(probe, 'listening');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const problem = code === 'EADDRINUSE' ? `port ${port} is in use` : `cannot listen on ${host}:${port} (${code})`;
    throw new StartError(`${problem}: set ${setting} or --port to another one`);
  }
  probe.close();
  await once(probe, 'close');
}

async function modelsIn(folder: string, settingOrFlag: string): Promise<Manifest> {
  const dir = resolve(root, folder);
  if (existsSync(join(dir, 'manifest.json'))) return loadManifest(dir);
  throw new StartError(`${folder} holds no model (no manifest.json): set ${settingOrFlag} to a model folder`);
}
