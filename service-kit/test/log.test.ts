import { PtpError } from '@ptp/protocol/errors';
import { describe, expect, test } from 'vitest';
import { createLogger } from '../src/log.ts';

/** Returns a destination that parses and keeps records. */
function records() {
  const written: Record<string, unknown>[] = [];
  return { written, write: (line: string) => void written.push(JSON.parse(line)) };
}

describe('createLogger', () => {
  test('writes one JSON object per line, with service, error and cause', () => {
    const destination = records();
    const cause = new Error('connection reset');
    createLogger('verifier', {}, destination).warn({ err: new PtpError('unavailable', 'gone', { cause }) }, 'lost');
    expect(destination.written).toMatchObject([
      { level: 'warn', service: 'verifier', msg: 'lost', err: { code: 'unavailable' } },
    ]);
    expect(JSON.stringify(destination.written)).toContain('connection reset');
  });

  test('drops records below PTP_LOG_LEVEL', () => {
    const destination = records();
    const logger = createLogger('gateway', { PTP_LOG_LEVEL: 'error' }, destination);
    logger.warn('unheard');
    logger.error('heard');
    expect(destination.written.map(({ msg }) => msg)).toEqual(['heard']);
  });

  test('fails at start on an unknown level', () => {
    expect(() => createLogger('drafter', { PTP_LOG_LEVEL: 'loud' })).toThrow(
      '`PTP_LOG_LEVEL` must be one of trace, debug, info, warn, error, fatal, silent, got "loud"',
    );
  });
});
