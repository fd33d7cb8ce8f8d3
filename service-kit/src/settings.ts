import { PtpError } from '@ptp/protocol/errors';

/** Where a server listens or a client connects. `target` is the gRPC name for it; port 0 asks for a free one. */
export type Address =
  | { readonly target: string; readonly host: string; readonly port: number }
  | { readonly target: string; readonly path: string };

/** One setting: the environment variable that sets it, its type and limits (inclusive), and one line for the docs. */
export type Setting = { readonly name: `PTP_${string}`; readonly doc: string } & (
  | { readonly type: 'integer' | 'number'; readonly default: number; readonly min?: number; readonly max?: number }
  | { readonly type: 'boolean'; readonly default: boolean }
  | { readonly type: 'string'; readonly default: string }
  | { readonly type: 'enum'; readonly default: string; readonly values: readonly string[] }
  | { readonly type: 'address' | 'addresses'; readonly default: string }
);

/** A service's settings, keyed by the name that its code uses. Write tables with `as const satisfies SettingsTable`. */
export type SettingsTable = Readonly<Record<string, Setting>>;

type ValueOf<S extends Setting> = S extends { type: 'integer' | 'number' }
  ? number
  : S extends { type: 'boolean' }
    ? boolean
    : S extends { type: 'enum'; values: readonly (infer V)[] }
      ? V
      : S extends { type: 'address' }
        ? Address
        : S extends { type: 'addresses' }
          ? readonly Address[]
          : string;

/** The values of a table's settings. */
export type SettingsOf<T extends SettingsTable> = { readonly [K in keyof T]: ValueOf<T[K]> };

/** Settings that every service has. */
export const sharedSettings = {
  logLevel: {
    name: 'PTP_LOG_LEVEL',
    type: 'enum',
    values: ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'],
    default: 'info',
    doc: 'Least severe log records to write.',
  },
} as const satisfies SettingsTable;

/**
 * Reads a table's settings from environment variables; an unset or empty variable means the default.
 *
 * @throws PtpError `invalid_argument` at the first bad value, naming variable, limit and value in one line
 */
export function settings<T extends SettingsTable>(
  table: T,
  env: Readonly<Record<string, string | undefined>>,
): SettingsOf<T> {
  const entries = Object.entries(table).map(([key, setting]) => {
    const value = parse(setting, env[setting.name] || String(setting.default));
    return [key, value];
  });
  return Object.fromEntries(entries) as SettingsOf<T>;
}

/** A table's settings as Markdown table rows, for the docs and `--help`. */
export function describeSettings(table: SettingsTable): string {
  const rows = Object.values(table).map((setting) => {
    const preset = setting.default === '' ? '' : `\`${setting.default}\` `;
    return `| \`${setting.name}\` | ${limits(setting)} | ${preset}| ${setting.doc} |`;
  });
  return ['| variable | value | default | what it does |', '| --- | --- | --- | --- |', ...rows].join('\n');
}

function parse(setting: Setting, text: string): Value {
  const value = parsers[setting.type](text);
  if (value === undefined || !withinLimits(setting, value)) {
    const message = `\`${setting.name}\` must be ${limits(setting)}, got ${JSON.stringify(text)}`;
    throw new PtpError('invalid_argument', message, { field: setting.name });
  }
  return value;
}

type Value = number | boolean | string | Address | readonly Address[];

const parsers: Record<Setting['type'], (text: string) => Value | undefined> = {
  integer: (text) => (/^[+-]?\d+$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : undefined),
  number: (text) => (text.trim() !== '' && Number.isFinite(Number(text)) ? Number(text) : undefined),
  boolean: (text) => (['true', '1'].includes(text) ? true : ['false', '0'].includes(text) ? false : undefined),
  string: (text) => text,
  enum: (text) => text,
  address: parseAddress,
  addresses: parseAddresses,
};

/** `host:port`, `[IPv6]:port` or `unix:/absolute/path`; undefined for anything else. */
function parseAddress(text: string): Address | undefined {
  const unix = /^unix:(\/.+)$/.exec(text);
  if (unix?.[1]) return { target: text, path: unix[1] };
  const tcp = /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:/[\]]+)):(\d{1,5})$/.exec(text);
  const host = tcp?.[1] ?? tcp?.[2];
  const port = Number(tcp?.[3]);
  return host !== undefined && port <= 65535 ? { target: text, host, port } : undefined;
}

/** Any number, with commas between them. */
function parseAddresses(text: string): readonly Address[] | undefined {
  if (text === '') return [];
  const addresses = text.split(',').map((part) => parseAddress(part.trim()));
  return addresses.every((address) => address !== undefined) ? addresses : undefined;
}

function withinLimits(setting: Setting, value: unknown): boolean {
  if (setting.type === 'enum') return setting.values.includes(value as string);
  if (setting.type !== 'integer' && setting.type !== 'number') return true;
  const { min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = setting;
  return (value as number) >= min && (value as number) <= max;
}

function limits(setting: Setting): string {
  switch (setting.type) {
    case 'integer':
    case 'number': {
      const noun = setting.type === 'integer' ? 'an integer' : 'a number';
      const { min, max } = setting;
      if (min !== undefined && max !== undefined) return `${noun} in [${min}, ${max}]`;
      if (min !== undefined) return `${noun} >= ${min}`;
      return max !== undefined ? `${noun} <= ${max}` : noun;
    }
    case 'boolean':
      return 'true, false, 1 or 0';
    case 'string':
      return 'a string';
    case 'enum':
      return `one of ${setting.values.join(', ')}`;
    case 'address':
      return 'host:port or unix:/path';
    case 'addresses':
      return 'host:port or unix:/path, or several with commas between them';
  }
}
