import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { checkSettingNames, nearest } from '@ptp/service-kit/setting-names';
import { type Address, engineAddress, integer, isHttp, path, type Setting, settings } from '@ptp/service-kit/settings';
import { drafterSettings } from '../drafter/src/settings.ts';
import { gatewaySettings } from '../gateway/src/settings.ts';
import { verifierSettings } from '../verifier/src/settings.ts';
import { flagValue } from './flag-value.ts';
import { readConfig } from './start-config.ts';
import { allFlags, commonFlags, engineFlag, flagOf, helpOf, modelType } from './start-help.ts';
import { StartError } from './supervisor.ts';

const FLAGS = {
  ...Object.fromEntries(allFlags.map((setting) => [flagOf(setting), { type: 'string' }] as const)),
  config: { type: 'string' },
  port: { type: 'string' },
  drafter: { type: 'string' },
  'tensor-parallel': { type: 'string' },
  help: { type: 'boolean', short: 'h' },
  'help-all': { type: 'boolean' },
} as const;
/** Names of the flags that a configuration file may have. */
const CONFIG_FLAGS = Object.entries(FLAGS).flatMap(([name, { type }]) =>
  type === 'string' && name !== 'config' ? [name] : [],
);

/** Flags of `npm start` that are not settings of the services. */
export interface EngineFlags {
  /** `torch`, or PTP_ENGINE of the verifier. Empty if the verifier runs the model. */
  readonly engine: string;
  /** Checkpoint of a PTP drafter, or the address of an engine that runs one. Empty if there is none. */
  readonly drafter: string;
  /** Number of GPUs that share the target. */
  readonly tensorParallel: number;
}

type Values = Record<string, string | boolean | undefined>;

/**
 * Returns the environment of the services, and the flags that are not settings. Flags on the command line override the
 * environment, which overrides the file of --config.
 */
export function environment(
  args: readonly string[] = process.argv.slice(2),
  given = process.env,
): { env: NodeJS.ProcessEnv; flags: EngineFlags } {
  const flags = parseFlags(args);
  if (flags.help || flags['help-all']) {
    console.log(helpOf(flags['help-all'] ? allFlags : commonFlags));
    process.exit(0);
  }
  checkSettingNames(given);
  const directory = given.INIT_CWD ?? '.';
  const config = configOf(flags.config, directory);
  const env = { ...given };
  for (const [name, value] of Object.entries(config.env)) env[name] ||= value;
  setVariables(env, flags, directory);
  return { env, flags: engineFlags(env, { ...config.flags, ...flags }) };
}

/** Reads the file of --config, whose paths are relative to it. */
function configOf(config: Values[string], directory: string): { env: NodeJS.ProcessEnv; flags: Values } {
  if (typeof config !== 'string') return { env: {}, flags: {} };
  const file = resolve(directory, config);
  const { drafter, ...flags } = readConfig(file, CONFIG_FLAGS);
  const env = {};
  setVariables(env, flags, dirname(file));
  return { env, flags: { ...flags, drafter: drafter && pathOr(dirname(file), drafter) } };
}

/** Sets the variables of settings to the values of their flags. Paths are relative to `directory`. */
function setVariables(env: NodeJS.ProcessEnv, values: Values, directory: string): void {
  for (const setting of allFlags) {
    const value = values[flagOf(setting)];
    if (typeof value === 'string') env[setting.name] = absolute(directory, setting, value);
  }
  if (typeof values.port === 'string') setPorts(env, values.port);
}

/**
 * Returns the flags about engines. Removes the engine from the environment, because drafter and verifier differ in it.
 */
function engineFlags(env: NodeJS.ProcessEnv, { drafter = '', 'tensor-parallel': gpus = '1' }: Values): EngineFlags {
  const { engine } = settings({ engine: engineFlag }, env);
  delete env[engineFlag.name];
  const tensorParallel = flagValue('--tensor-parallel', integer(1, 64), String(gpus));
  return { engine, drafter: drafterOf(env.INIT_CWD ?? '.', String(drafter)), tensorParallel };
}

/**
 * Returns the absolute path of a checkpoint, or the address of an engine.
 *
 * @throws StartError if the value is neither an existing file nor the address of a gRPC engine. SGLang, which has http
 *   addresses, runs no drafters.
 */
function drafterOf(directory: string, value: string): string {
  const checkpoint = pathOr(directory, value);
  if (existsSync(checkpoint)) return checkpoint;
  const { data: address } = engineAddress.schema.safeParse(value);
  if (address !== undefined && !isHttp(address)) return address;
  throw new StartError(`--drafter must be a checkpoint, host:port or unix:/path, got ${JSON.stringify(value)}`);
}

/** Returns the absolute path if the setting is a path, or else the value. A model may also be a name on the hub. */
function absolute(directory: string, { type }: Setting, value: string): string {
  if (type === modelType) return pathOr(directory, value);
  return type === path && value !== '' ? resolve(directory, value) : value;
}

/** Returns the absolute path of an existing file or folder, or else the value unchanged. */
function pathOr(directory: string, value: string): string {
  const absolute = resolve(directory, value);
  return value !== '' && existsSync(absolute) ? absolute : value;
}

/**
 * Returns the values of the flags on a command line.
 *
 * @throws StartError if there is an unknown flag
 */
export function parseFlags(args: readonly string[]): Values {
  try {
    return parseArgs({ args: [...args], options: FLAGS }).values as Values;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const unknown = code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION' && /'--([^']+)'/.exec(message)?.[1];
    if (!unknown) throw new StartError(`${message}; see npm start -- --help`);
    const meant = nearest(unknown, Object.keys(FLAGS));
    const hint = meant ? `did you mean --${meant}? See` : 'see';
    throw new StartError(`--${unknown} is not a flag: ${hint} npm start -- --help`);
  }
}

function setPorts(env: NodeJS.ProcessEnv, text: string): void {
  const port = flagValue('--port', integer(1, 65534), text);
  const set = ({ name, default: preset }: Setting, value: number) => {
    env[name] = (env[name] || String(preset)).replace(/:\d+$/, `:${value}`);
  };
  set(gatewaySettings.listen, port);
  set(gatewaySettings.grpcListen, port + 1);
}

/**
 * Checks settings and ports. Without this check, a service would report the error later and less clearly.
 *
 * @returns the address of the HTTP API
 * @throws StartError or PtpError for an invalid setting or a port in use
 */
export async function checkEnvironment(env: NodeJS.ProcessEnv): Promise<{ host: string; port: number }> {
  const { listen, grpcListen, verifiers, drafters } = settings(gatewaySettings, env);
  for (const table of [verifierSettings, drafterSettings]) settings(table, env);
  if (!('port' in listen)) throw new StartError(`npm start needs host:port in ${gatewaySettings.listen.name}`);
  requireOne('verifier', verifiers, gatewaySettings.verifiers.name);
  if (drafters.length > 0) requireOne('drafter', drafters, gatewaySettings.drafters.name);
  await checkPort(listen, gatewaySettings.listen.name);
  await checkPort(grpcListen, gatewaySettings.grpcListen.name);
  return listen;
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
    throw new StartError(`${problem}: set ${setting} or --port to another port`);
  }
  probe.close();
  await once(probe, 'close');
}
