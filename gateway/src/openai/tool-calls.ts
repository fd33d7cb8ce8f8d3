import { randomUUID } from 'node:crypto';
import { HEAD, MIDDLE, OPEN, TAIL } from './tools.ts';

/** A piece of a call: its beginning has `id` and `name`. */
export interface CallPiece {
  /** Which call of the answer, from 0. */
  readonly index: number;
  readonly id?: string;
  readonly name?: string;
  /** What follows of its arguments, JSON text. */
  readonly arguments: string;
}

/** What an answer's text says: text for people, and calls. */
export interface Said {
  readonly text: string;
  readonly calls: readonly CallPiece[];
}

/** Reads calls out of a text that arrives in pieces and follows a `toolForm` grammar, as far as it goes. */
export class ToolCallReader {
  /** Calls begun so far. */
  calls = 0;
  #state: 'text' | 'head' | 'arguments' | 'tail' = 'text';
  #held = '';
  #depth = 0;
  #inString = false;
  #escaped = false;

  push(piece: string): Said {
    this.#held += piece;
    let text = '';
    const calls: CallPiece[] = [];
    for (;;) {
      if (this.#state === 'text') {
        const at = this.#held.indexOf(OPEN);
        if (at < 0) {
          text += this.#certain();
          break;
        }
        text += this.#said(this.#held.slice(0, at).trimEnd());
        this.#held = this.#held.slice(at + OPEN.length);
        this.#state = 'head';
      } else if (this.#state === 'head') {
        const end = this.#held.indexOf(MIDDLE);
        if (end < 0) break;
        const name = this.#held.slice(HEAD.length, end);
        calls.push({ index: this.calls++, id: `call_${randomUUID().replaceAll('-', '')}`, name, arguments: '' });
        this.#held = this.#held.slice(end + MIDDLE.length);
        this.#state = 'arguments';
      } else if (this.#state === 'arguments') {
        const given = this.#arguments();
        if (given !== '') calls.push({ index: this.calls - 1, arguments: given });
        // the loop above stops at the end of the text or of the arguments
        if ((this.#state as string) === 'arguments') break;
      } else {
        if (this.#held.length < TAIL.length) break;
        this.#held = this.#held.slice(TAIL.length);
        this.#state = 'text';
      }
    }
    return { text, calls };
  }

  /** The rest of the text, once none follows. */
  end(): string {
    return this.#state === 'text' ? this.#said(this.#held) : '';
  }

  /** Text that cannot belong to an opening tag, nor to the space before one. */
  #certain(): string {
    const possible = /\s*(<[tool_call]*)?$/.exec(this.#held);
    const tag = possible?.[1] ?? '';
    const from = OPEN.startsWith(tag) ? (possible?.index ?? this.#held.length) : this.#held.length;
    const text = this.#held.slice(0, from);
    this.#held = this.#held.slice(from);
    return this.#said(text);
  }

  /** Between and after calls is nothing but space. */
  #said(text: string): string {
    return this.calls > 0 ? '' : text;
  }

  /** Takes an object's text from what is held, up to its closing brace. */
  #arguments(): string {
    for (let i = 0; i < this.#held.length; i++) {
      const character = this.#held[i];
      if (this.#escaped) this.#escaped = false;
      else if (this.#inString && character === '\\') this.#escaped = true;
      else if (character === '"') this.#inString = !this.#inString;
      else if (!this.#inString && (character === '{' || character === '[')) this.#depth++;
      else if (!this.#inString && (character === '}' || character === ']') && --this.#depth === 0) {
        this.#state = 'tail';
        const given = this.#held.slice(0, i + 1);
        this.#held = this.#held.slice(i + 1);
        return given;
      }
    }
    const given = this.#held;
    this.#held = '';
    return given;
  }
}
