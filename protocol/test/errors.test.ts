import { status } from '@grpc/grpc-js';
import { describe, expect, test } from 'vitest';
import { codeFromGrpc, type ErrorCode, PtpError, publicMessage, toPtpError, wireErrors } from '../src/errors.ts';

const codes = Object.keys(wireErrors) as ErrorCode[];

describe('wireErrors', () => {
  test.each(codes)('%s has the gRPC number of that name', (code) => {
    expect(wireErrors[code].grpc).toBe(status[code.toUpperCase() as keyof typeof status]);
  });

  test.each(codes)('%s survives a round trip over gRPC', (code) => {
    expect(codeFromGrpc(wireErrors[code].grpc)).toBe(code);
  });

  test('a gRPC status that we never send reads as internal', () => {
    expect(codeFromGrpc(status.DATA_LOSS)).toBe('internal');
  });
});

describe('publicMessage', () => {
  test('shows messages meant for clients', () => {
    expect(publicMessage(new PtpError('not_found', 'no model named x'))).toBe('no model named x');
  });

  test.each([
    new Error('ENOENT /secret/path'),
    new PtpError('internal', 'shape [3] of /secret/path'),
    'a thrown secret',
    undefined,
    null,
  ])('hides the details of %o', (thrown) => {
    expect(publicMessage(thrown)).toBe('internal error');
  });
});

describe('toPtpError', () => {
  test('returns a PtpError unchanged', () => {
    const error = new PtpError('out_of_range', 'too long', { field: 'messages' });
    expect(toPtpError(error)).toBe(error);
    expect(error.field).toBe('messages');
  });

  test("converts an AbortSignal's reasons", async () => {
    expect(toPtpError(AbortSignal.abort().reason).code).toBe('cancelled');
    const timeout = AbortSignal.timeout(0);
    await new Promise((resolve) => timeout.addEventListener('abort', resolve));
    expect(toPtpError(timeout.reason).code).toBe('deadline_exceeded');
  });

  test('keeps an unknown error as the cause, for the log', () => {
    const cause = new TypeError('x is undefined');
    const error = toPtpError(cause);
    expect(error.code).toBe('internal');
    expect(error.cause).toBe(cause);
  });
});
