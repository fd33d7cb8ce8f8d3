import { LeadingBytes } from './token-healing.ts';
import type { Tokenizer } from './tokenizer.ts';

/** Text that a step added to an answer. */
export interface TextPiece {
  /** Final text. May be empty. */
  readonly text: string;
  /** Number of tokens of the step, up to and including the token that completed a stop string. */
  readonly count: number;
  /** Reason why the answer ended with this step. */
  readonly finish: 'stop' | 'length' | undefined;
}

/**
 * The text of one answer, step by step, up to its first stop string. Holds back bytes that are not yet a whole
 * character, and text that may begin a stop string, so that the text returned by `add` is final. The text does not
 * depend on how tokens are grouped into steps.
 */
export class TextStream {
  readonly #tokenizer: Pick<Tokenizer, 'bytes'>;
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  readonly #scanner: StopScanner;
  readonly #minTokens: number;
  readonly #healed: LeadingBytes;
  /** Number of tokens so far. */
  #tokens = 0;

  /**
   * @param stop non-empty strings. The text ends before the first of them
   * @param minTokens number of tokens at the beginning that cannot complete a stop string
   * @param healedBytes number of bytes at the beginning that belong to the prompt, not to the answer
   */
  constructor(tokenizer: Pick<Tokenizer, 'bytes'>, stop: readonly string[], minTokens = 0, healedBytes = 0) {
    this.#tokenizer = tokenizer;
    this.#scanner = new StopScanner(stop);
    this.#minTokens = minTokens;
    this.#healed = new LeadingBytes(healedBytes);
  }

  /** @param finish reason why the answer ends, set on the last step. A stop string within the step takes precedence */
  add(tokens: readonly number[], finish?: 'stop' | 'length'): TextPiece {
    const scanner = this.#scanner;
    let text = '';
    let count = 0;
    while (count < tokens.length && !scanner.stopped) {
      const bytes = this.#healed.drop(this.#tokenizer.bytes(tokens[count++] as number));
      this.#tokens++;
      text += scanner.push(this.#decoder.decode(bytes, { stream: true }), this.#mayStop);
    }
    // An incomplete character at the end becomes U+FFFD, which may complete a stop string too.
    if (finish && !scanner.stopped) text += scanner.push(this.#decoder.decode(), this.#mayStop) + scanner.end();
    return { text, count, finish: scanner.stopped ? 'stop' : finish };
  }

  get #mayStop(): boolean {
    return this.#tokens > this.#minTokens;
  }
}

/**
 * Finds the stop string that is complete first (on a tie, the longest) in a text that arrives in pieces. Runs one
 * Knuth-Morris-Pratt automaton per stop string, whose state is the length of the prefix that the text ends with.
 */
class StopScanner {
  readonly #automata: { readonly stop: string; readonly borders: Int32Array; matched: number }[];
  #held = '';
  stopped = false;

  constructor(stop: readonly string[]) {
    const longestFirst = [...stop].sort((a, b) => b.length - a.length);
    this.#automata = longestFirst.map((text) => ({ stop: text, borders: bordersOf(text), matched: 0 }));
  }

  /** @param mayStop false if a stop string that is complete within `text` is part of the answer */
  push(text: string, mayStop: boolean): string {
    if (this.stopped) return '';
    const buffer = this.#held + text;
    for (let i = this.#held.length; i < buffer.length; i++) {
      for (const automaton of this.#automata) {
        automaton.matched = advance(automaton.stop, automaton.borders, automaton.matched, buffer.charAt(i));
        if (automaton.matched < automaton.stop.length) continue;
        if (mayStop) {
          this.stopped = true;
          this.#held = '';
          return buffer.slice(0, i + 1 - automaton.stop.length);
        }
        automaton.matched = automaton.borders.at(-1) as number;
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

/** Returns the length of the prefix of `pattern` that the text ends with after one more character. */
function advance(pattern: string, borders: Int32Array, matched: number, character: string): number {
  let length = matched;
  while (length > 0 && pattern.charAt(length) !== character) length = borders[length - 1] as number;
  return pattern.charAt(length) === character ? length + 1 : 0;
}

/**
 * Returns the failure function of `pattern`: entry i is the length of the longest proper prefix of `pattern[0..i]` that
 * is also its suffix.
 */
function bordersOf(pattern: string): Int32Array {
  const borders = new Int32Array(pattern.length);
  for (let i = 1; i < pattern.length; i++) {
    borders[i] = advance(pattern, borders, borders[i - 1] as number, pattern.charAt(i));
  }
  return borders;
}
