import { PtpError } from '@ptp/protocol/errors';
import { cut } from './block.ts';
import type { Block, GrammarState } from './types.ts';

/** Position of a text in its grammar; without one, all tokens are allowed. */
export class GrammarCursor {
  #state: GrammarState | undefined;

  constructor(start: GrammarState | undefined) {
    this.#state = start;
  }

  /** The cursor after these tokens; undefined if the grammar does not allow them. */
  after(tokens: readonly number[]): GrammarCursor | undefined {
    const states = this.#along(tokens);
    if (this.#state && states.length <= tokens.length) return undefined;
    return tokens.length === 0 ? this : new GrammarCursor(states.at(-1));
  }

  /** The block up to the first token that is not allowed: the rest could not be accepted. */
  allowed(block: Block): Block {
    if (!this.#state) return block;
    const length = this.#along(block.tokens).length - 1;
    return length < block.tokens.length ? cut(block, 0, length) : block;
  }

  /** Masks at each allowed token of a block and after it; empty without a grammar. */
  masks(tokens: readonly number[]): Uint8Array[] {
    return this.#along(tokens).map(({ mask }) => mask);
  }

  /** @throws PtpError `internal` if the target chose a token that is not allowed */
  follow(tokens: readonly number[]): void {
    const next = this.after(tokens);
    if (!next) {
      const token = tokens[this.#along(tokens).length - 1];
      throw new PtpError('internal', `the verifier chose token ${token}, which the grammar does not allow`);
    }
    this.#state = next.#state;
  }

  /** States before each token and after the last, as far as they are allowed. */
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
