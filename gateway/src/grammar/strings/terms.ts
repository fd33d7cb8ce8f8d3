import { anyCharacter, normalize, type Ranges } from '../characters.ts';
import { getOrCreate } from '../get-or-create.ts';
import { isSubset } from './subset.ts';

/**
 * Regular expression over characters, extended by intersection and complement. Equal terms of one `Terms` are one
 * object.
 */
export type Term = TermShape & TermProperties;

type TermShape =
  | { readonly kind: 'nothing' }
  | { readonly kind: 'empty' }
  | { readonly kind: 'set'; readonly ranges: Ranges }
  | Words
  | { readonly kind: 'cat'; readonly first: Term; readonly rest: Term }
  | { readonly kind: 'or'; readonly of: readonly Term[] }
  | { readonly kind: 'and'; readonly of: readonly Term[] }
  | { readonly kind: 'not'; readonly of: Term }
  | { readonly kind: 'repeat'; readonly of: Term; readonly min: number; readonly max: number };

/** Matches what follows the first `offset` characters in one of the texts, which all begin with the same characters. */
export interface Words {
  readonly kind: 'words';
  /** [texts][characters] code points. */
  readonly texts: readonly (readonly number[])[];
  readonly offset: number;
}

interface TermProperties {
  readonly id: number;
  /** True if the term matches the empty text. */
  readonly nullable: boolean;
  /** Lower bound on the length of a match, in characters. */
  readonly shortest: number;
  /** Upper bound on the length of a match, in characters. May be Infinity. */
  readonly longest: number;
  /** True if the term contains no intersection and no complement. Every plain term except `nothing` has a match. */
  readonly plain: boolean;
}

/**
 * Creates terms in simplified form, to keep the number of derivatives small: an alternative whose matches all match
 * another alternative is dropped, so ambiguous counters such as `(\w{1,20} ?){1,60}` do not multiply.
 */
export class Terms {
  readonly #terms = new Map<string, Term>();
  /** Truncated terms, keyed by the lookahead. */
  readonly #truncated = new Map<number, Map<Term, Term>>();
  readonly nothing = this.#intern('nothing', { kind: 'nothing' }, false, Number.POSITIVE_INFINITY, -1, true);
  readonly empty = this.#intern('empty', { kind: 'empty' }, true, 0, 0, true);
  readonly character = this.set(anyCharacter);
  /** Matches any text. */
  readonly anything = this.repeat(this.character, 0, Number.POSITIVE_INFINITY);

  /** Number of terms created so far. */
  get size(): number {
    return this.#terms.size;
  }

  set(ranges: Ranges): Term {
    const normal = normalize(ranges);
    if (normal.length === 0) return this.nothing;
    return this.#intern(`set ${normal.join(' ')}`, { kind: 'set', ranges: normal }, false, 1, 1, true);
  }

  text(text: string): Term {
    return this.sequence(Array.from(text, (c) => this.set([[c.codePointAt(0) as number, c.codePointAt(0) as number]])));
  }

  /** Matches one of several texts. Much smaller than a union of their terms. */
  words(texts: readonly string[]): Term {
    return this.#words(
      Array.from(texts, (text) => Array.from(text, (c) => c.codePointAt(0) as number)),
      0,
    );
  }

  /** Returns the words that remain after a character. Not interned: callers cache the result. */
  wordsAfter({ texts, offset }: Words, character: number): Term {
    return this.#words(
      texts.filter((text) => text[offset] === character),
      offset + 1,
    );
  }

  #words(texts: Words['texts'], offset: number): Term {
    const lengths = texts.map((text) => text.length - offset);
    const [shortest, longest] = lengths.reduce(
      ([low, high], n) => [Math.min(low, n), Math.max(high, n)],
      [Number.POSITIVE_INFINITY, -1],
    );
    if (longest <= 0) return longest === 0 ? this.empty : this.nothing;
    const key = `words ${this.#terms.size}`;
    return this.#intern(key, { kind: 'words', texts, offset }, shortest === 0, shortest, longest, true);
  }

  sequence(parts: readonly Term[]): Term {
    return parts.reduceRight((rest, part) => this.cat(part, rest), this.empty);
  }

  cat(first: Term, rest: Term): Term {
    if (first.kind === 'nothing' || rest.kind === 'nothing') return this.nothing;
    if (first.kind === 'empty') return rest;
    if (rest.kind === 'empty') return first;
    if (first.kind === 'cat') return this.cat(first.first, this.cat(first.rest, rest));
    const next = rest.kind === 'cat' ? rest.first : rest;
    if (first.kind === 'repeat' && next.kind === 'repeat' && first.of === next.of) {
      const merged = this.repeat(first.of, first.min + next.min, first.max + next.max);
      return rest.kind === 'cat' ? this.cat(merged, rest.rest) : merged;
    }
    return this.#intern(
      `cat ${first.id} ${rest.id}`,
      { kind: 'cat', first, rest },
      first.nullable && rest.nullable,
      first.shortest + rest.shortest,
      first.longest + rest.longest,
      first.plain && rest.plain,
    );
  }

  or(terms: readonly Term[]): Term {
    const flat = new Set(terms.flatMap((term) => (term.kind === 'or' ? term.of : [term])));
    if (flat.has(this.anything)) return this.anything;
    flat.delete(this.nothing);
    const of = [...flat].sort((a, b) => a.id - b.id);
    const kept = of.filter((term) => !of.some((other) => other !== term && isSubset(term, other)));
    if (kept.length < 2) return kept[0] ?? this.nothing;
    return this.#intern(
      `or ${kept.map(({ id }) => id)}`,
      { kind: 'or', of: kept },
      kept.some(({ nullable }) => nullable),
      Math.min(...kept.map(({ shortest }) => shortest)),
      Math.max(...kept.map(({ longest }) => longest)),
      kept.every(({ plain }) => plain),
    );
  }

  and(terms: readonly Term[]): Term {
    const flat = new Set(terms.flatMap((term) => (term.kind === 'and' ? term.of : [term])));
    flat.delete(this.anything);
    if (flat.has(this.nothing)) return this.nothing;
    const of = this.#withOneLength([...flat]).sort((a, b) => a.id - b.id);
    if (of.length < 2) return of[0] ?? this.anything;
    const nullable = of.every((term) => term.nullable);
    const shortest = Math.max(...of.map((term) => term.shortest));
    const longest = Math.min(...of.map((term) => term.longest));
    if (shortest > longest) return this.nothing;
    if (longest === 0) return nullable ? this.empty : this.nothing;
    if (of.some((term) => term.kind === 'not' && of.includes(term.of))) return this.nothing;
    const key = `and ${of.map(({ id }) => id)}`;
    return this.#intern(key, { kind: 'and', of }, nullable, shortest, longest, false);
  }

  not(term: Term): Term {
    if (term.kind === 'not') return term.of;
    if (term === this.nothing) return this.anything;
    if (term === this.anything) return this.nothing;
    const shortest = term.nullable ? 1 : 0;
    const shape = { kind: 'not', of: term } as const;
    return this.#intern(`not ${term.id}`, shape, !term.nullable, shortest, Number.POSITIVE_INFINITY, false);
  }

  repeat(of: Term, min: number, max: number): Term {
    if (max < min) return this.nothing;
    if (max === 0 || of.kind === 'empty') return this.empty;
    if (of.kind === 'nothing') return min === 0 ? this.empty : this.nothing;
    if (min === 1 && max === 1) return of;
    // The empty text counts as a repetition, so the minimum does not matter.
    const least = of.nullable ? 0 : min;
    return this.#intern(
      `repeat ${of.id} ${least} ${max}`,
      { kind: 'repeat', of, min: least, max },
      least === 0,
      least * of.shortest,
      of.longest === 0 ? 0 : max * of.longest,
      of.plain,
    );
  }

  /** Limits counters to a lookahead of `length` characters. Terms with an intersection or complement do not change. */
  truncate(term: Term, length: number): Term {
    if (!term.plain) return term;
    const known = getOrCreate(this.#truncated, length, () => new Map<Term, Term>());
    return getOrCreate(known, term, () => this.#truncate(term, length));
  }

  #truncate(term: Term, length: number): Term {
    switch (term.kind) {
      case 'cat':
        return this.cat(this.truncate(term.first, length), this.truncate(term.rest, length));
      case 'or':
        return this.or(term.of.map((each) => this.truncate(each, length)));
      case 'repeat': {
        const max = term.max > length ? Number.POSITIVE_INFINITY : term.max;
        return this.repeat(this.truncate(term.of, length), Math.min(term.min, length), max);
      }
      default:
        return term;
    }
  }

  /** Replaces several limits on the length by one. */
  #withOneLength(terms: readonly Term[]): Term[] {
    const limits = terms.filter((term) => term.kind === 'repeat' && term.of === this.character);
    if (limits.length < 2) return [...terms];
    const min = Math.max(...limits.map(({ shortest }) => shortest));
    const max = Math.min(...limits.map(({ longest }) => longest));
    return [...terms.filter((term) => !limits.includes(term)), this.repeat(this.character, min, max)];
  }

  #intern(key: string, shape: TermShape, nullable: boolean, shortest: number, longest: number, plain: boolean): Term {
    return getOrCreate(this.#terms, key, () => {
      return { ...shape, id: this.#terms.size, nullable, shortest, longest, plain };
    });
  }
}
