import { invalidField } from '@ptp/protocol/validation';
import { z } from 'zod';

/** Address to listen on or to connect to. `target` is the address as a gRPC target string. Port 0 means any free port. */
export type Address =
  | { readonly target: string; readonly host: string; readonly port: number }
  | { readonly target: string; readonly path: string };

/** Type of a setting's value, which is read from the text of an environment variable. */
export interface SettingType<T> {
  readonly schema: z.ZodType<T>;
  /** Text that completes "must be" in errors. */
  readonly expected: string;
  /** Placeholder for the value in the help of a flag. */
  readonly placeholder: string;
}

/** One setting, with its environment variable, type and default, and a description for --help and the docs. */
export interface Setting<T = unknown> {
  readonly name: `PTP_${string}`;
  readonly type: SettingType<T>;
  readonly default: string | number;
  readonly doc: string;
}

/** Describes a setting: `setting(name, type, default).doc(sentence)`. */
export function setting<T, const Default extends string | number>(
  name: Setting['name'],
  type: SettingType<T>,
  preset: Default,
) {
  return { doc: (doc: string): Setting<T> & { readonly default: Default } => ({ name, type, default: preset, doc }) };
}

/** Settings of a service, keyed by the names that its code uses. */
export type SettingsTable = Readonly<Record<string, Setting>>;

/** The values of a table's settings. */
export type SettingsOf<Table extends SettingsTable> = {
  readonly [Key in keyof Table]: Table[Key] extends Setting<infer T> ? T : never;
};

export const text: SettingType<string> = { schema: z.string(), expected: 'a string', placeholder: 'TEXT' };
/** Path of a file or folder, relative to the working directory. */
export const path: SettingType<string> = { schema: z.string(), expected: 'a path', placeholder: 'PATH' };

/** Whole numbers. The limits are inclusive. */
export function integer(min: number, max?: number): SettingType<number> {
  const digits = z.string().regex(/^[+-]?\d+$/);
  return numeric(digits, z.int(), 'an integer', min, max);
}

/** Finite numbers. The limits are inclusive. */
export function number(min: number, max?: number): SettingType<number> {
  const notBlank = z.string().regex(/\S/);
  return numeric(notBlank, z.number(), 'a number', min, max);
}

function numeric(source: z.ZodString, target: z.ZodNumber, noun: string, min: number, max?: number) {
  const limited = target.min(min).max(max ?? Number.MAX_SAFE_INTEGER);
  const expected = max === undefined ? `${noun} >= ${min}` : `${noun} in [${min}, ${max}]`;
  return { schema: source.transform(Number).pipe(limited), expected, placeholder: 'N' };
}

export function oneOf<const T extends string>(...values: readonly T[]): SettingType<T> {
  return { schema: z.enum(values), expected: `one of ${values.join(', ')}`, placeholder: 'NAME' };
}

/** Number of layers, or `auto` for all layers that fit. */
export const layers: SettingType<number | 'auto'> = autoOr(integer(0, 1024));

/** `auto`, or a value of another type. */
export function autoOr<T>({ schema, expected, placeholder }: SettingType<T>): SettingType<T | 'auto'> {
  return { schema: z.union([z.literal('auto'), schema]), expected: `auto or ${expected}`, placeholder };
}

export const address: SettingType<Address> = {
  schema: z.string().transform((value, issues) => parseAddress(value) ?? refuse(issues)),
  expected: 'host:port or unix:/path',
  placeholder: 'ADDRESS',
};

export const addresses: SettingType<readonly Address[]> = {
  schema: z.string().transform((value, issues) => {
    if (value === '') return [];
    return value.split(',').map((part) => parseAddress(part.trim()) ?? refuse(issues));
  }),
  expected: 'host:port or unix:/path, or a comma-separated list of them',
  placeholder: 'ADDRESSES',
};

/** Returns true for URLs, at which SGLang serves a model. */
export function isHttp(address: string): boolean {
  return /^https?:\/\//.test(address);
}

/**
 * Address of an engine outside the service: a gRPC target string, or the URLs of SGLang servers, separated by commas.
 * Empty if the service has its own engine.
 */
export const engineAddress: SettingType<string> = {
  schema: z.string().transform((value, issues) => {
    if (value === '') return value;
    const parts = value.split(',').map((part) => part.trim());
    if (parts.every((part) => isHttp(part) && URL.canParse(part))) return parts.join();
    return parseAddress(value.replace(/^grpc:\/\//, ''))?.target ?? refuse(issues);
  }),
  expected: 'host:port, unix:/path, or a comma-separated list of http:// addresses',
  placeholder: 'ADDRESS',
};

/**
 * Reads a table's settings from environment variables. An unset or empty variable means the default.
 *
 * @throws PtpError `invalid_argument` for the first invalid value, naming the variable, the limit and the value
 */
export function settings<Table extends SettingsTable>(table: Table, env: NodeJS.ProcessEnv): SettingsOf<Table> {
  const entries = Object.entries(table).map(([key, { name, type, default: preset }]) => {
    const given = env[name] || String(preset);
    const parsed = type.schema.safeParse(given);
    if (!parsed.success) throw invalidField(name, type.expected, given);
    return [key, parsed.data];
  });
  return Object.fromEntries(entries) as SettingsOf<Table>;
}

/** Parses `host:port`, `[IPv6]:port` or `unix:/absolute/path`. Returns undefined for anything else. */
function parseAddress(value: string): Address | undefined {
  const unix = /^unix:(\/.+)$/.exec(value);
  if (unix?.[1]) return { target: value, path: unix[1] };
  const tcp = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:/[\]]+)):(\d{1,5})$/.exec(value);
  const host = tcp?.[1] ?? tcp?.[2];
  const port = Number(tcp?.[3]);
  return host !== undefined && port <= 65535 ? { target: value, host, port } : undefined;
}

function refuse(issues: z.RefinementCtx): never {
  issues.addIssue('not an address');
  return z.NEVER;
}
