import type { Tokenizer } from '../text/tokenizer.ts';

const OPEN = '<think>';
const CLOSE = '</think>';

/** An answer's text, split into the model's reasoning and the reply that follows. */
export interface SplitReasoning {
  readonly reasoning: string;
  readonly text: string;
}

/**
 * Splits the thoughts off an answer that arrives in pieces: the text between `<think>` and `</think>` at its beginning,
 * as Qwen 3, DeepSeek R1 and others write it. Drops the whitespace around both parts.
 */
export class ReasoningReader {
  #state: 'start' | 'reasoning' | 'gap' | 'text';
  #held = '';
  /** True until the first thought, which begins without whitespace. */
  #trimsStart: boolean;

  /** @param isOpen true if the prompt ends with `<think>`, so that the answer begins with thoughts */
  constructor(isOpen: boolean) {
    this.#state = isOpen ? 'reasoning' : 'start';
    this.#trimsStart = isOpen;
  }

  push(piece: string): SplitReasoning {
    this.#held += piece;
    if (this.#state === 'start') {
      const begun = this.#held.trimStart();
      if (begun.length < OPEN.length && OPEN.startsWith(begun)) return { reasoning: '', text: '' };
      const thinks = begun.startsWith(OPEN);
      this.#state = thinks ? 'reasoning' : 'text';
      this.#trimsStart = thinks;
      if (thinks) this.#held = begun.slice(OPEN.length);
    }
    const reasoning = this.#state === 'reasoning' ? this.#takeReasoning() : '';
    if (this.#state === 'gap') {
      this.#held = this.#held.trimStart();
      if (this.#held !== '') this.#state = 'text';
    }
    return { reasoning, text: this.#state === 'text' ? this.#take(this.#held.length) : '' };
  }

  /** Returns the text that was held back, after the last piece. */
  end(): SplitReasoning {
    const rest = this.#take(this.#held.length);
    if (this.#state === 'reasoning') return { reasoning: rest.trimEnd(), text: '' };
    return { reasoning: '', text: this.#state === 'start' ? rest : '' };
  }

  /**
   * Takes the thoughts up to the closing tag, or up to text that may belong to the tag or to the whitespace before it.
   */
  #takeReasoning(): string {
    if (this.#trimsStart) {
      this.#held = this.#held.trimStart();
      this.#trimsStart = this.#held === '';
    }
    const end = this.#held.indexOf(CLOSE);
    if (end >= 0) {
      const reasoning = this.#take(end).trimEnd();
      this.#take(CLOSE.length);
      this.#state = 'gap';
      return reasoning;
    }
    let tag = Math.min(CLOSE.length - 1, this.#held.length);
    while (tag > 0 && !this.#held.endsWith(CLOSE.slice(0, tag))) tag--;
    return this.#take(this.#held.slice(0, this.#held.length - tag).trimEnd().length);
  }

  #take(length: number): string {
    const text = this.#held.slice(0, length);
    this.#held = this.#held.slice(length);
    return text;
  }
}

/** Returns true if the answer to a prompt begins with thoughts, because the chat template has written the opening tag. */
export function opensThoughts(prompt: readonly number[], tokenizer: Tokenizer): boolean {
  return tokenizer
    .decode(prompt.slice(-2 * OPEN.length))
    .trimEnd()
    .endsWith(OPEN);
}
