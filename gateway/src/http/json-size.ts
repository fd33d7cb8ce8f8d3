import { PtpError } from '@ptp/protocol/errors';
import { fieldError } from '@ptp/protocol/validation';
import { ownTurn } from '@ptp/service-kit/own-turn';
import { NESTING_LIMIT } from './json.ts';

/**
 * Limits of a request body. They are checked before it is parsed, because each value costs time in the parser, the
 * schema checks and the chat template, all of which block the event loop. Prompts of token ids have the most values.
 */
const LIMITS = { containers: 10_000, values: 300_000 };

/** Number of bytes that are counted in one turn of the event loop. */
const SLICE = 128 * 1024;

const [QUOTE, BACKSLASH, COMMA, BRACKET, BRACE] = [0x22, 0x5c, 0x2c, 0x5b, 0x7b];
const [BRACKET_END, BRACE_END] = [0x5d, 0x7d];

/** Counts the values of a JSON text without parsing it. The text may be invalid. */
class ValueCounter {
  #containers = 0;
  #values = 1;
  #depth = 0;
  #inString = false;
  #escaped = false;

  /** @throws PtpError `invalid_argument` if the text is nested too deep */
  add(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i] as number;
      if (this.#inString) i = this.#string(bytes, i);
      else this.#structure(byte);
    }
  }

  #structure(byte: number): void {
    if (byte === QUOTE) this.#inString = true;
    else if (byte === COMMA) this.#values++;
    else if (byte === BRACKET_END || byte === BRACE_END) this.#depth--;
    else if (byte === BRACKET || byte === BRACE) {
      if (++this.#depth > NESTING_LIMIT) {
        const message = `the request body must be nested at most ${NESTING_LIMIT} levels deep`;
        throw new PtpError('invalid_argument', message);
      }
      this.#containers++;
    }
  }

  /** Skips the rest of a string, or of the slice. @returns the index of the last byte read */
  #string(bytes: Uint8Array, start: number): number {
    for (let i = start; i < bytes.length; i++) {
      const byte = bytes[i];
      if (this.#escaped) this.#escaped = false;
      else if (byte === BACKSLASH) this.#escaped = true;
      else if (byte === QUOTE) {
        this.#inString = false;
        return i;
      }
    }
    return bytes.length;
  }

  /** @throws PtpError `invalid_argument` if the text has too many values */
  check(): void {
    for (const [what, count, limit] of [
      ['arrays and objects', this.#containers, LIMITS.containers],
      ['values', this.#values, LIMITS.values],
    ] as const) {
      if (count > limit) throw fieldError('body', `must have at most ${limit} ${what}, got ${count}`);
    }
  }
}

/**
 * Checks the size of a JSON text in slices, between which other requests are served. Returns in a turn in which no other
 * large text is checked.
 *
 * @throws PtpError `invalid_argument` naming the limit
 */
export async function checkJsonSize(bytes: Uint8Array): Promise<void> {
  const counter = new ValueCounter();
  for (let at = 0; at < bytes.length; at += SLICE) {
    counter.add(bytes.subarray(at, at + SLICE));
    if (bytes.length > SLICE) await ownTurn();
  }
  counter.check();
}
