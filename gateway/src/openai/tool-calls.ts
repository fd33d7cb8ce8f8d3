import { newId } from '../http/ids.ts';
import { CALL_ARGUMENTS, CALL_CLOSE, CALL_NAME, CALL_OPEN } from '../text/tool-format.ts';

/** Piece of a tool call. The first piece of each call has `id` and `name`. */
export interface CallPiece {
  /** Index of the call in the answer, counted from 0. */
  readonly index: number;
  readonly id?: string;
  readonly name?: string;
  /** Next part of the JSON text of the arguments. */
  readonly arguments: string;
}

/**
 * Form of an answer that may contain calls: text and then calls (`possible`), calls only (`forced`), or either text or
 * calls (`instead`).
 */
export type CallMode = 'possible' | 'forced' | 'instead';

/**
 * Separates tool calls from a text that arrives in pieces. The text follows the grammar of `withToolConstraint`, but
 * may end anywhere.
 */
export class ToolCallReader {
  #callCount = 0;
  #state: 'text' | 'only text' | 'head' | 'arguments' | 'tail' = 'text';
  #held = '';
  #depth = 0;
  #inString = false;
  #escaped = false;
  readonly #mode: CallMode;

  constructor(mode: CallMode) {
    this.#mode = mode;
  }

  /** True if the text ends inside a call. */
  get isInCall(): boolean {
    return this.#state === 'head' || this.#state === 'arguments';
  }

  push(piece: string): { text: string; calls: CallPiece[] } {
    this.#held += piece;
    if (this.#mode === 'instead' && this.#isText()) this.#state = 'only text';
    if (this.#state === 'only text') return { text: this.#takeAll(), calls: [] };
    let text = '';
    const calls: CallPiece[] = [];
    for (;;) {
      if (this.#state === 'text') {
        const at = this.#held.indexOf(CALL_OPEN);
        if (at < 0) {
          text += this.#takeContent();
          break;
        }
        text += this.#content(this.#held.slice(0, at).trimEnd());
        this.#held = this.#held.slice(at + CALL_OPEN.length);
        this.#state = 'head';
      } else if (this.#state === 'head') {
        const end = this.#held.indexOf(CALL_ARGUMENTS);
        if (end < 0) break;
        const name = this.#held.slice(CALL_NAME.length, end);
        calls.push({ index: this.#callCount++, id: newId('call_'), name, arguments: '' });
        this.#held = this.#held.slice(end + CALL_ARGUMENTS.length);
        this.#state = 'arguments';
      } else if (this.#state === 'arguments') {
        const part = this.#takeArguments();
        if (part !== '') calls.push({ index: this.#callCount - 1, arguments: part });
        // The rest of the arguments has not arrived yet.
        if ((this.#state as string) === 'arguments') break;
      } else {
        if (this.#held.length < CALL_CLOSE.length) break;
        this.#held = this.#held.slice(CALL_CLOSE.length);
        this.#state = 'text';
      }
    }
    return { text, calls };
  }

  /**
   * Returns the rest of the content after the last piece. A possible beginning of an opening tag is content only if
   * the model has ended the text there.
   */
  end(finish: string): string {
    if (this.#state !== 'text') return '';
    const isCut = (this.#mode === 'forced' || finish === 'length') && this.#held.includes('<');
    return isCut ? '' : this.#content(this.#held);
  }

  /** Returns true if the answer is certain to be text in place of calls. */
  #isText(): boolean {
    if (this.#state !== 'text' || this.#callCount > 0) return false;
    return !this.#held.startsWith(CALL_OPEN) && !CALL_OPEN.startsWith(this.#held);
  }

  #takeAll(): string {
    const text = this.#held;
    this.#held = '';
    return text;
  }

  /** Removes and returns the text that cannot be part of an opening tag or of the whitespace before it. */
  #takeContent(): string {
    const possible = /\s*(<[tool_call]*)?$/.exec(this.#held);
    const tag = possible?.[1] ?? '';
    const from = CALL_OPEN.startsWith(tag) ? (possible?.index ?? this.#held.length) : this.#held.length;
    const text = this.#held.slice(0, from);
    this.#held = this.#held.slice(from);
    return this.#content(text);
  }

  /** Returns content. After a call, content can only be whitespace, which is dropped. */
  #content(text: string): string {
    return this.#callCount > 0 ? '' : text;
  }

  /** Removes and returns the text of a JSON object, up to its closing brace if the brace has arrived. */
  #takeArguments(): string {
    for (let i = 0; i < this.#held.length; i++) {
      const character = this.#held[i];
      if (this.#escaped) this.#escaped = false;
      else if (this.#inString && character === '\\') this.#escaped = true;
      else if (character === '"') this.#inString = !this.#inString;
      else if (!this.#inString && (character === '{' || character === '[')) this.#depth++;
      else if (!this.#inString && (character === '}' || character === ']') && --this.#depth === 0) {
        this.#state = 'tail';
        const text = this.#held.slice(0, i + 1);
        this.#held = this.#held.slice(i + 1);
        return text;
      }
    }
    return this.#takeAll();
  }
}
