import { PtpError } from '@ptp/protocol/errors';
import { cut } from './block.ts';
import type { Block, GrammarState } from './types.ts';

/** Maximum time that the masks of one block may hold up other streams, in milliseconds. */
const MASKS_MILLIS = 4;

/** Position of a text in its grammar. Without a grammar, all tokens are allowed. */
export class GrammarCursor {
  #state: GrammarState | undefined;

  constructor(start: GrammarState | undefined) {
    this.#state = start?.isOpen ? undefined : start;
  }

  /** Returns the cursor after these tokens, or undefined if the grammar does not allow them. */
  after(tokens: readonly number[]): GrammarCursor | undefined {
    const states = this.#along(tokens);
    if (this.#state && states.length <= tokens.length) return undefined;
    return tokens.length === 0 ? this : new GrammarCursor(states.at(-1));
  }

  /** Cuts a block before the first token that is not allowed, because the rest could not be accepted. */
  allowed(block: Block): Block {
    if (!this.#state) return block;
    const length = this.#along(block.tokens).length - 1;
    return length < block.tokens.length ? cut(block, 0, length) : block;
  }

  /**
   * Cuts a block of allowed tokens where computing its masks would hold up other streams for too long. The event loop
   * runs before the next block, which reuses the masks that have been computed.
   */
  affordable(block: Block): Block {
    const deadline = performance.now() + MASKS_MILLIS;
    for (const [length, state] of this.#along(block.tokens).entries()) {
      // Computes the mask, which can take milliseconds.
      state.mask;
      if (length < block.tokens.length && performance.now() > deadline) return cut(block, 0, length);
    }
    return block;
  }

  /** Returns the masks before each allowed token and after the last one. Returns no masks if there is no grammar. */
  masks(tokens: readonly number[]): Uint8Array[] {
    return this.#along(tokens).map(({ mask }) => mask);
  }

  /**
   * Moves past committed tokens.
   *
   * @throws PtpError `internal` if the verifier chose a token that is not allowed
   */
  follow(tokens: readonly number[]): void {
    const next = this.after(tokens);
    if (!next) {
      const token = tokens[this.#along(tokens).length - 1];
      throw new PtpError('internal', `the verifier chose token ${token}, which the grammar does not allow`);
    }
    this.#state = next.#state;
  }

  /** Returns the states before each allowed token and after the last one. */
  #along(tokens: readonly number[]): GrammarState[] {
    const states = this.#state ? [this.#state] : [];
    for (const token of this.#state ? tokens : []) {
      const next = states.at(-1)?.after(token);
      if (!next) break;
      states.push(next);
    }
    return states;
  }
}
