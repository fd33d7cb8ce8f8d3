import type { Tokenizer } from './tokenizer.ts';

/** Prompt without its last tokens, which the model generates again. */
export interface HealedPrompt {
  /** Tokens that remain, at least one. */
  readonly prompt: readonly number[];
  /** Bytes of the removed tokens, with which the generated tokens begin. */
  readonly healed: Uint8Array;
}

/**
 * Removes the tokens at the end of a prompt that longer tokens of the vocabulary could replace. A prompt that ends in
 * `{` and a line feed, for example, hides from the model the tokens of a line feed and the indentation after it, so the
 * model concludes that no indented line follows.
 *
 * @param isExtended function that returns true if some token begins with these bytes and is longer
 * @returns undefined if no token could replace the end of the prompt
 */
export function healPrompt(
  prompt: readonly number[],
  tokenizer: Pick<Tokenizer, 'bytes' | 'longestToken'>,
  isExtended: (bytes: Uint8Array) => boolean,
): HealedPrompt | undefined {
  let healed: HealedPrompt | undefined;
  let suffix: Uint8Array = new Uint8Array();
  for (let from = prompt.length - 1; from > 0; from--) {
    const bytes = tokenizer.bytes(prompt[from] as number);
    suffix = Buffer.concat([bytes, suffix]);
    // A special token has no bytes.
    if (bytes.length === 0 || suffix.length >= tokenizer.longestToken) break;
    if (isExtended(suffix)) healed = { prompt: prompt.slice(0, from), healed: suffix };
  }
  return healed;
}

/** Drops the first bytes of a text that arrives in pieces. */
export class LeadingBytes {
  #left: number;

  /** @param count number of bytes to drop */
  constructor(count: number) {
    this.#left = count;
  }

  /** Returns the next piece without the bytes to drop. */
  drop(bytes: Uint8Array): Uint8Array {
    const dropped = Math.min(this.#left, bytes.length);
    this.#left -= dropped;
    return bytes.subarray(dropped);
  }

  /** Returns a copy, for a text that continues differently. */
  fork(): LeadingBytes {
    return new LeadingBytes(this.#left);
  }
}
