import { describe, expect, test } from 'vitest';
import { PtpError } from '../src/errors.ts';
import { samplingParams } from '../src/sampling-params.ts';

describe('samplingParams', () => {
  test("defaults to the model's own distribution", () => {
    expect(samplingParams({}, 100)).toEqual({ temperature: 1, topK: 0, topP: 1 });
    expect(samplingParams({ temperature: null, topP: null }, 100)).toEqual({ temperature: 1, topK: 0, topP: 1 });
  });

  test.each([
    { temperature: 0, topK: 0, topP: 1 },
    { temperature: 2, topK: 100, topP: 1e-6 },
  ])('accepts the limits: %j', (given) => {
    expect(samplingParams(given, 100)).toEqual(given);
  });

  test.each([
    [{ temperature: -1 }, 'temperature', '`temperature` must be in [0, 2], got -1'],
    [{ temperature: 2.1 }, 'temperature', '`temperature` must be in [0, 2], got 2.1'],
    [{ temperature: Number.NaN }, 'temperature', '`temperature` must be in [0, 2], got NaN'],
    [{ topK: -1 }, 'top_k', '`top_k` must be 0 (off) or an integer in [1, 100], got -1'],
    [{ topK: 1.5 }, 'top_k', '`top_k` must be 0 (off) or an integer in [1, 100], got 1.5'],
    [{ topK: 101 }, 'top_k', '`top_k` must be 0 (off) or an integer in [1, 100], got 101'],
    [{ topP: 0 }, 'top_p', '`top_p` must be in (0, 1], got 0'],
    [{ topP: 1.01 }, 'top_p', '`top_p` must be in (0, 1], got 1.01'],
    [{ topP: Number.NaN }, 'top_p', '`top_p` must be in (0, 1], got NaN'],
  ])('refuses %j', (given, field, message) => {
    expect(() => samplingParams(given, 100)).toThrow(new PtpError('invalid_argument', message, { field }));
  });
});
