import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Tokenizer } from '../gateway/src/text/tokenizer.ts';

/** The beginning of a held-out file. */
export interface Prompt {
  /** `held_files` (other files of packages in the training data) or `held_packages`. */
  readonly split: string;
  readonly package: string;
  readonly path: string;
  readonly tokens: number[];
}

/** Tokenizes prompts.json. Each prompt begins with the end-of-text token, as every document does. @param longest limit in tokens */
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

/** Joins all prompts and cuts excerpts from the result. Each turn gives a different excerpt; every run gives the same ones. */
export function excerpts(prompts: readonly Prompt[], endOfText: number): (turn: number, length: number) => number[] {
  const text = prompts.flatMap(({ tokens }) => tokens.filter((token) => token !== endOfText));
  return (turn, length) => {
    const start = (turn * 997) % (text.length - length);
    return text.slice(start, start + length);
  };
}
