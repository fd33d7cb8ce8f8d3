import { PtpError } from '@ptp/protocol/errors';
import { describe, expect, expectTypeOf, test } from 'vitest';
import { type Address, describeSettings, type SettingsTable, settings } from '../src/settings.ts';

const table = {
  draftMax: { name: 'PTP_DRAFT_MAX', type: 'integer', default: 8, min: 0, max: 64, doc: 'Longest draft, in tokens.' },
  threshold: { name: 'PTP_THRESHOLD', type: 'number', default: 0.5, min: 0, doc: 'Least confidence.' },
  overlap: { name: 'PTP_OVERLAP', type: 'boolean', default: true, doc: 'Draft while verifying.' },
  model: { name: 'PTP_MODEL', type: 'string', default: '', doc: 'Model folder.' },
  format: { name: 'PTP_FORMAT', type: 'enum', values: ['f32', 'pr7'], default: 'f32', doc: 'Weights.' },
  listen: { name: 'PTP_LISTEN', type: 'address', default: '127.0.0.1:50051', doc: 'Where to listen.' },
} as const satisfies SettingsTable;

describe('settings', () => {
  test('gives the defaults for what is unset or empty, with their types', () => {
    const values = settings(table, { PTP_DRAFT_MAX: '' });
    expect(values).toEqual({
      draftMax: 8,
      threshold: 0.5,
      overlap: true,
      model: '',
      format: 'f32',
      listen: { target: '127.0.0.1:50051', host: '127.0.0.1', port: 50051 },
    });
    expectTypeOf(values.draftMax).toEqualTypeOf<number>();
    expectTypeOf(values.overlap).toEqualTypeOf<boolean>();
    expectTypeOf(values.format).toEqualTypeOf<'f32' | 'pr7'>();
    expectTypeOf(values.listen).toEqualTypeOf<Address>();
  });

  test('reads every type, limits included', () => {
    const env = {
      PTP_DRAFT_MAX: '64',
      PTP_THRESHOLD: '0',
      PTP_OVERLAP: '0',
      PTP_MODEL: 'models/default',
      PTP_FORMAT: 'pr7',
      PTP_LISTEN: 'unix:/run/ptp.sock',
    };
    expect(settings(table, env)).toEqual({
      draftMax: 64,
      threshold: 0,
      overlap: false,
      model: 'models/default',
      format: 'pr7',
      listen: { target: 'unix:/run/ptp.sock', path: '/run/ptp.sock' },
    });
  });

  test.each([
    ['[::1]:0', { target: '[::1]:0', host: '::1', port: 0 }],
    ['verifier.internal:65535', { target: 'verifier.internal:65535', host: 'verifier.internal', port: 65535 }],
  ])('reads the address %s', (text, address) => {
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
    ['PTP_OVERLAP', 'yes', '`PTP_OVERLAP` must be true, false, 1 or 0, got "yes"'],
    ['PTP_OVERLAP', 'toString', '`PTP_OVERLAP` must be true, false, 1 or 0, got "toString"'],
    ['PTP_FORMAT', 'q4', '`PTP_FORMAT` must be one of f32, pr7, got "q4"'],
    ['PTP_LISTEN', '50051', '`PTP_LISTEN` must be host:port or unix:/path, got "50051"'],
    ['PTP_LISTEN', 'host:65536', '`PTP_LISTEN` must be host:port or unix:/path, got "host:65536"'],
    ['PTP_LISTEN', 'http://host:1', '`PTP_LISTEN` must be host:port or unix:/path, got "http://host:1"'],
    ['PTP_LISTEN', '::1:80', '`PTP_LISTEN` must be host:port or unix:/path, got "::1:80"'],
    ['PTP_LISTEN', 'unix:relative', '`PTP_LISTEN` must be host:port or unix:/path, got "unix:relative"'],
  ])('refuses %s=%s', (field, text, message) => {
    expect(() => settings(table, { [field]: text })).toThrow(new PtpError('invalid_argument', message, { field }));
  });
});

describe('describeSettings', () => {
  test('prints one row a setting', () => {
    const lines = describeSettings(table).split('\n');
    expect(lines).toHaveLength(2 + Object.keys(table).length);
    expect(lines[2]).toBe('| `PTP_DRAFT_MAX` | an integer in [0, 64] | `8` | Longest draft, in tokens. |');
    expect(lines[5]).toBe('| `PTP_MODEL` | a string | | Model folder. |');
  });
});
