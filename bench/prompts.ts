import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Tokenizer } from '../gateway/src/text/tokenizer.ts';

/** A held-out file's beginning. */
export interface Prompt {
  /** `held_files` (other files of packages that were trained on) or `held_packages`. */
  readonly split: string;
  readonly package: string;
  readonly path: string;
  readonly tokens: number[];
}

/** The prompts of prompts.json as token ids after the end-of-text token that every document begins with, at most `longest`. */
export async function loadPrompts(tokenizer: Tokenizer, endOfText: number, longest: number): Promise<Prompt[]> {
  const stored = JSON.parse(await readFile(join(import.meta.dirname, 'prompts.json'), 'utf8')) as {
    split: string;
    package: string;
    path: string;
    prompt: string;
  }[];
  return stored.map(({ prompt, ...rest }) => ({
    ...rest,
    tokens: [endOfText, ...tokenizer.encode(prompt)].slice(0, longest),
  }));
}

/** Cuts of any length from all prompts, one after the other: another one each turn, the same each run. */
export function excerpts(prompts: readonly Prompt[], endOfText: number): (turn: number, length: number) => number[] {
  const text = prompts.flatMap(({ tokens }) => tokens.filter((token) => token !== endOfText));
  return (turn, length) => {
    const start = (turn * 997) % (text.length - length);
    return text.slice(start, start + length);
  };
}
