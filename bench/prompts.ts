import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Tokenizer } from '../gateway/src/text/tokenizer.ts';

/**
 * Returns the tokens of the prompts in prompts.json. The prompts are beginnings of held-out files. Each begins with the
 * end-of-text token, as every document does.
 *
 * @param longest maximum number of tokens in a prompt. Longer prompts are cut
 */
export async function loadPrompts(tokenizer: Tokenizer, endOfText: number, longest: number): Promise<number[][]> {
  const file = join(import.meta.dirname, 'prompts.json');
  const stored: { readonly prompt: string }[] = JSON.parse(await readFile(file, 'utf8'));
  return stored.map(({ prompt }) => [endOfText, ...tokenizer.encode(prompt)].slice(0, longest));
}

/**
 * Joins all prompts and cuts excerpts from the result. Each turn gives a different excerpt, but every run gives the
 * same excerpts.
 */
export function excerpts(prompts: readonly number[][], endOfText: number): (turn: number, length: number) => number[] {
  const text = prompts.flat().filter((token) => token !== endOfText);
  return (turn, length) => {
    const start = (turn * 997) % (text.length - length);
    return text.slice(start, start + length);
  };
}
