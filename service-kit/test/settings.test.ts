import { PtpError } from '@ptp/protocol/errors';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { checkSettingNames, SETTING_NAMES } from '../src/setting-names.ts';
import {
  type Address,
  address,
  addresses,
  engineAddress,
  integer,
  number,
  oneOf,
  path,
  type SettingsTable,
  settings,
} from '../src/settings.ts';

const table = {
  draftMax: { name: 'PTP_DRAFT_MAX', type: integer(0, 64), default: 8, doc: 'Longest draft, in tokens.' },
  threshold: { name: 'PTP_THRESHOLD', type: number(0), default: 0.5, doc: 'Least confidence.' },
  model: { name: 'PTP_MODEL', type: path, default: '', doc: 'Model folder.' },
  format: { name: 'PTP_FORMAT', type: oneOf('f32', 'pr7'), default: 'f32', doc: 'Weights.' },
  listen: { name: 'PTP_LISTEN', type: address, default: '127.0.0.1:50051', doc: 'Where to listen.' },
  peers: { name: 'PTP_PEERS', type: addresses, default: '', doc: 'Others.' },
} as const satisfies SettingsTable;

describe('settings', () => {
  test('have typed defaults if unset or empty', () => {
    const values = settings(table, { PTP_DRAFT_MAX: '' });
    expect(values).toEqual({
      draftMax: 8,
      threshold: 0.5,
      model: '',
      format: 'f32',
      listen: { target: '127.0.0.1:50051', host: '127.0.0.1', port: 50051 },
      peers: [],
    });
    expectTypeOf(values.draftMax).toEqualTypeOf<number>();
    expectTypeOf(values.format).toEqualTypeOf<'f32' | 'pr7'>();
    expectTypeOf(values.listen).toEqualTypeOf<Address>();
  });

  test('are read for every type, limits included', () => {
    const env = {
      PTP_DRAFT_MAX: '64',
      PTP_THRESHOLD: '0',
      PTP_MODEL: 'models/default',
      PTP_FORMAT: 'pr7',
      PTP_LISTEN: 'unix:/run/ptp.sock',
      PTP_PEERS: 'a:1, b:2',
    };
    expect(settings(table, env)).toEqual({
      draftMax: 64,
      threshold: 0,
      model: 'models/default',
      format: 'pr7',
      listen: { target: 'unix:/run/ptp.sock', path: '/run/ptp.sock' },
      peers: [
        { target: 'a:1', host: 'a', port: 1 },
        { target: 'b:2', host: 'b', port: 2 },
      ],
    });
  });

  test.each([
    ['[::1]:0', { target: '[::1]:0', host: '::1', port: 0 }],
    ['verifier.internal:65535', { target: 'verifier.internal:65535', host: 'verifier.internal', port: 65535 }],
  ])('accept the address %s', (text, address) => {
    expect(settings(table, { PTP_LISTEN: text }).listen).toEqual(address);
  });

  test.each([
    ['PTP_DRAFT_MAX', '65', '`PTP_DRAFT_MAX` must be an integer in [0, 64], got "65"'],
    ['PTP_DRAFT_MAX', '-1', '`PTP_DRAFT_MAX` must be an integer in [0, 64], got "-1"'],
    ['PTP_DRAFT_MAX', '8.0', '`PTP_DRAFT_MAX` must be an integer in [0, 64], got "8.0"'],
    ['PTP_DRAFT_MAX', 'eight', '`PTP_DRAFT_MAX` must be an integer in [0, 64], got "eight"'],
    ['PTP_THRESHOLD', '-0.1', '`PTP_THRESHOLD` must be a number >= 0, got "-0.1"'],
    ['PTP_THRESHOLD', 'Infinity', '`PTP_THRESHOLD` must be a number >= 0, got "Infinity"'],
    ['PTP_THRESHOLD', ' ', '`PTP_THRESHOLD` must be a number >= 0, got " "'],
    ['PTP_FORMAT', 'q4', '`PTP_FORMAT` must be one of f32, pr7, got "q4"'],
    ['PTP_LISTEN', '50051', '`PTP_LISTEN` must be host:port or unix:/path, got "50051"'],
    ['PTP_LISTEN', 'host:65536', '`PTP_LISTEN` must be host:port or unix:/path, got "host:65536"'],
    ['PTP_LISTEN', 'http://host:1', '`PTP_LISTEN` must be host:port or unix:/path, got "http://host:1"'],
    ['PTP_LISTEN', '::1:80', '`PTP_LISTEN` must be host:port or unix:/path, got "::1:80"'],
    ['PTP_LISTEN', 'unix:relative', '`PTP_LISTEN` must be host:port or unix:/path, got "unix:relative"'],
    [
      'PTP_PEERS',
      'a:1,b',
      '`PTP_PEERS` must be host:port or unix:/path, or a comma-separated list of them, got "a:1,b"',
    ],
  ])('reject %s=%s', (field, text, message) => {
    expect(() => settings(table, { [field]: text })).toThrow(new PtpError('invalid_argument', message, { field }));
  });
});

test.each([
  ['', ''],
  ['gpu:7202', 'gpu:7202'],
  ['grpc://10.0.0.1:7202', '10.0.0.1:7202'],
  ['unix:/run/engine', 'unix:/run/engine'],
  ['http://gpu1:30000, https://gpu2', 'http://gpu1:30000,https://gpu2'],
])('the address of an engine may be %j', (given, target) => {
  expect(engineAddress.schema.parse(given)).toBe(target);
});

test.each(['gpu', 'unix:engine', 'grpc://', 'http://', 'http://a,b:1'])(
  'the address of an engine may not be %j',
  (given) => {
    expect(engineAddress.schema.safeParse(given).success).toBe(false);
  },
);

describe('checkSettingNames', () => {
  test.each([
    ['PTP_VERIFIER_ADDRESS', 'was renamed: set `PTP_VERIFIERS` in the gateway and `PTP_LISTEN` in the verifier'],
    ['PTP_VERIFY_TIMEOUT_MILLIS', 'was renamed: set `PTP_VERIFY_TIMEOUT_SECONDS`, in seconds'],
    ['PTP_STALL_MILLIS', 'is no longer a setting: unset it'],
    ['PTP_MAX_STREAM', 'is not a setting: did you mean `PTP_MAX_STREAMS`?'],
    ['PTP_COLOUR', 'is not a setting: see docs/settings.md'],
    ['PTP_GPRC_LISTEN', 'is not a setting: did you mean `PTP_GRPC_LISTEN`?'],
  ])('%s %s', (name, problem) => {
    const error = new PtpError('invalid_argument', `\`${name}\` ${problem}`, { field: name });
    expect(() => checkSettingNames({ PATH: '/bin', [name]: '1' })).toThrow(error);
  });

  test('accepts settings, variables of tools, and those of Kubernetes', () => {
    const names = ['PTP_LISTEN', 'PTP_URL', 'PTP_FUZZ_RUNS', 'PTP_GATEWAY_SERVICE_PORT_HTTP', 'PTP_PORT_8080_TCP_ADDR'];
    checkSettingNames(Object.fromEntries(names.map((name) => [name, '1'])));
    expect(SETTING_NAMES.length).toBeLessThanOrEqual(30);
  });
});
