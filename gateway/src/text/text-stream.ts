/**
 * A sequence's text, token by token. Bytes that are not yet a whole character are held back, and so is text that may
 * be the beginning of a stop string; what `push` returns is therefore final. How tokens are grouped into steps makes
 * no difference to the text.
 */
export class TextStream {
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  readonly #scanner: StopScanner;

  /** @param stop non-empty strings; the text ends before the first of them */
  constructor(stop: readonly string[]) {
    this.#scanner = new StopScanner(stop);
  }

  /** Whether a stop string has ended the text. */
  get stopped(): boolean {
    return this.#scanner.stopped;
  }

  /**
   * @param bytes the next token's UTF-8 bytes
   * @returns the text that is now certain, perhaps none
   */
  push(bytes: Uint8Array): string {
    return this.#scanner.push(this.#decoder.decode(bytes, { stream: true }));
  }

  /** The rest of the text, once no token follows; an incomplete character becomes U+FFFD. */
  end(): string {
    const text = this.#scanner.push(this.#decoder.decode());
    return text + this.#scanner.end();
  }
}

/**
 * Finds the first stop string to be complete in a text that arrives in pieces (on a tie, the longest). One
 * Knuth-Morris-Pratt automaton per stop string; its state is how much of that string the text now ends with.
 */
class StopScanner {
  readonly #automata: { readonly stop: string; readonly borders: Int32Array; matched: number }[];
  #held = '';
  stopped = false;

  constructor(stop: readonly string[]) {
    const longestFirst = [...stop].sort((a, b) => b.length - a.length);
    this.#automata = longestFirst.map((text) => ({ stop: text, borders: bordersOf(text), matched: 0 }));
  }

  push(text: string): string {
    if (this.stopped) return '';
    const buffer = this.#held + text;
    for (let i = this.#held.length; i < buffer.length; i++) {
      for (const automaton of this.#automata) {
        automaton.matched = advance(automaton.stop, automaton.borders, automaton.matched, buffer.charAt(i));
        if (automaton.matched === automaton.stop.length) {
          this.stopped = true;
          this.#held = '';
          return buffer.slice(0, i + 1 - automaton.stop.length);
        }
      }
    }
    const certain = buffer.length - Math.max(0, ...this.#automata.map((automaton) => automaton.matched));
    this.#held = buffer.slice(certain);
    return buffer.slice(0, certain);
  }

  end(): string {
    const rest = this.#held;
    this.#held = '';
    return rest;
  }
}

/** How much of `pattern` the text ends with after one more character. */
function advance(pattern: string, borders: Int32Array, matched: number, character: string): number {
  let length = matched;
  while (length > 0 && pattern.charAt(length) !== character) length = borders[length - 1] as number;
  return pattern.charAt(length) === character ? length + 1 : 0;
}

/** Entry i: length of the longest proper prefix of `pattern[0..i]` that is also its suffix. */
function bordersOf(pattern: string): Int32Array {
  const borders = new Int32Array(pattern.length);
  for (let i = 1; i < pattern.length; i++) {
    borders[i] = advance(pattern, borders, borders[i - 1] as number, pattern.charAt(i));
  }
  return borders;
}
