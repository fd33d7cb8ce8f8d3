import { PtpError } from '@ptp/protocol/errors';
import { type Block, cut } from './block.ts';
import type { GrammarState } from './types.ts';

/** A text's way through its grammar; without one all is allowed. */
export class GrammarCursor {
  #place: GrammarState | undefined;

  constructor(start: GrammarState | undefined) {
    this.#place = start;
  }

  /** The way from after these tokens on; undefined if they may not come. */
  after(tokens: readonly number[]): GrammarCursor | undefined {
    const places = this.#along(tokens);
    if (this.#place && places.length <= tokens.length) return undefined;
    return tokens.length === 0 ? this : new GrammarCursor(places.at(-1));
  }

  /** The block up to the first token that may not come: the rest could not be right. */
  allowed(block: Block): Block {
    if (!this.#place) return block;
    const length = this.#along(block.tokens).length - 1;
    return length < block.tokens.length ? cut(block, 0, length) : block;
  }

  /** For each token of a block that is allowed, and for what follows it, the mask of its place; empty without a grammar. */
  masks(tokens: readonly number[]): Uint8Array[] {
    return this.#along(tokens).map(({ mask }) => mask);
  }

  /** @throws PtpError `internal` if the target has chosen what may not come */
  follow(tokens: readonly number[]): void {
    const next = this.after(tokens);
    if (!next) {
      const token = tokens[this.#along(tokens).length - 1];
      throw new PtpError('internal', `the verifier chose token ${token}, which the grammar does not allow`);
    }
    this.#place = next.#place;
  }

  /** The places before each token and after the last, as far as they are allowed. */
  #along(tokens: readonly number[]): GrammarState[] {
    const places = this.#place ? [this.#place] : [];
    for (const token of this.#place ? tokens : []) {
      const next = places.at(-1)?.after(token);
      if (!next) break;
      places.push(next);
    }
    return places;
  }
}
