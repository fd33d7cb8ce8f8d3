import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PtpError } from '@ptp/protocol/errors';
import { ggufTokens } from '@ptp/protocol/gguf-manifest';
import { isGguf, type Manifest } from '@ptp/protocol/manifest';

/** A draft model, or the target that it drafts for. */
export interface LocatedModel {
  readonly path: string;
  readonly manifest: Manifest;
}

/**
 * Checks that a draft model has the same tokens as a target and picks them in the same way. Two folders with a manifest
 * must have the same tokenizer.json. If one of the models is a GGUF file or a Hugging Face folder, the names of the
 * tokens must be the same, because the rest depends on how the file was written.
 *
 * @throws PtpError `failed_precondition` naming `setting` and the difference
 */
export async function checkDraftModel(draft: LocatedModel, target: LocatedModel, setting: string): Promise<void> {
  for (const { name, actual, expected } of await properties(draft, target)) {
    if (actual === expected) continue;
    const [ours, theirs] = [draft.manifest.id, target.manifest.id];
    const message = `${setting}: ${name} of ${ours} must be ${expected}, as in ${theirs}, got ${actual}`;
    throw new PtpError('failed_precondition', message, { field: setting });
  }
}

interface Property {
  readonly name: string;
  readonly actual: unknown;
  readonly expected: unknown;
}

/** Returns the properties in which the models must agree. */
async function properties(draft: LocatedModel, target: LocatedModel): Promise<Property[]> {
  const property = (name: string, of: (manifest: Manifest) => unknown) => ({
    name,
    actual: of(draft.manifest),
    expected: of(target.manifest),
  });
  const hash = property('the SHA-256 of `tokenizer.json`', ({ tokenizer }) => tokenizer.sha256);
  const common = [property('the vocabulary size', ({ sizes }) => sizes.vocab), property('`pick`', ({ pick }) => pick)];
  if (draft.manifest.engine === 'onnx' && target.manifest.engine === 'onnx') {
    return [hash, ...common, property('`end_of_text`', ({ end_of_text }) => end_of_text)];
  }
  return hash.actual === hash.expected ? common : [...common, ...(await differentNames(draft.path, target.path))];
}

/** Returns the first token whose names differ. A tokenizer.json omits the names of ids that no text is tokenized to. */
async function differentNames(draftPath: string, targetPath: string): Promise<Property[]> {
  const [drafts, targets] = await Promise.all([tokenNames(draftPath), tokenNames(targetPath)]);
  for (const [id, name] of drafts) {
    const expected = targets.get(id);
    if (expected === undefined || expected === name) continue;
    return [{ name: `token ${id}`, actual: JSON.stringify(name), expected: JSON.stringify(expected) }];
  }
  return [];
}

interface TokenizerJson {
  readonly model: { readonly vocab: Readonly<Record<string, number>> };
  readonly added_tokens?: readonly { readonly id: number; readonly content: string }[];
}

/** Returns the names of the tokens, keyed by id. */
async function tokenNames(path: string): Promise<ReadonlyMap<number, string>> {
  if (isGguf(path)) return new Map((await ggufTokens(path)).entries());
  const { model, added_tokens = [] }: TokenizerJson = JSON.parse(await readFile(join(path, 'tokenizer.json'), 'utf8'));
  const names = Object.entries(model.vocab).map(([name, id]) => [id, name] as const);
  return new Map([...names, ...added_tokens.map(({ id, content }) => [id, content] as const)]);
}
