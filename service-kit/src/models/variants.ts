import { parseGGUFQuantLabel } from '@huggingface/gguf';
import { ModelError } from './model-error.ts';
import { formatBytes } from './progress.ts';

/** A file of a repository: its path inside the repository, and its size. */
export interface ModelFile {
  readonly path: string;
  readonly size: number;
}

/** One GGUF of a repository, in one file or in several parts. */
export interface Variant<File extends ModelFile = ModelFile> {
  /** Path without the part's number and the extension. */
  readonly stem: string;
  /** Quantisation, such as Q4_K_M. Undefined if the file's name does not contain it. */
  readonly quantisation: string | undefined;
  /** The parts in order; llama.cpp opens the first one. */
  readonly files: readonly [File, ...File[]];
  readonly bytes: number;
}

/** Quantisations that are chosen if there is no selector, best first. */
const PREFERRED = ['Q4_K_M', 'Q8_0'];
const PART = /-(\d{5})-of-(\d{5})(\.[a-z]+)$/;
/** Names of image projectors and of statistics for quantising, which llama.cpp cannot load as models. */
const NO_MODEL = /(^|\/)mmproj|imatrix/i;

/** Returns the GGUF models among some files. A GGUF in several parts counts only if all of its parts are there. */
export function variantsOf<File extends ModelFile>(files: readonly File[]): Variant<File>[] {
  const ggufs = files.filter(({ path }) => path.endsWith('.gguf') && !NO_MODEL.test(path));
  const groups = Map.groupBy(complete(ggufs), ({ path }) => path.replace(PART, '$3').slice(0, -'.gguf'.length));
  return [...groups].map(([stem, parts]) => ({
    stem,
    quantisation: parseGGUFQuantLabel(stem),
    files: parts.sort((a, b) => (a.path < b.path ? -1 : 1)) as [File, ...File[]],
    bytes: parts.reduce((sum, { size }) => sum + size, 0),
  }));
}

/** Returns the files, except parts of a GGUF that is missing other parts. */
export function complete<File extends ModelFile>(files: readonly File[]): File[] {
  const key = (path: string) => path.replace(PART, '-of-$2$3');
  const counts = new Map<string, number>();
  for (const { path } of files) counts.set(key(path), (counts.get(key(path)) ?? 0) + 1);
  return files.filter(({ path }) => counts.get(key(path)) === Number(PART.exec(path)?.[2] ?? 1));
}

/**
 * Chooses a GGUF of a repository.
 *
 * @param variants at least one
 * @throws ModelError that lists the variants unless exactly one fits
 */
export function chooseVariant<V extends Variant>(variants: readonly V[], repo: string, selector?: string): V {
  const found = fittingVariants(variants, selector);
  const [only] = found;
  if (found.length === 1 && only) return only;
  const list = (found.length > 1 ? found : variants).map(
    (variant) => `${selectorOf(variant, variants)} (${formatBytes(variant.bytes)})`,
  );
  const problem = found.length > 1 ? 'has several GGUF files to choose from' : `has no \`${selector}\``;
  throw new ModelError(`\`${repo}\` ${problem}: name one as in \`${repo}:NAME\`, NAME being ${list.join(', ')}`);
}

/**
 * Returns the variants that a selector (a quantisation or a file name) stands for. Without a selector, returns the
 * variants of the best quantisation that the repository has, or else all variants.
 */
export function fittingVariants<V extends Variant>(variants: readonly V[], selector?: string): readonly V[] {
  return selector === undefined ? preferred(variants) : selected(variants, selector);
}

/**
 * Returns the text to write after `org/repo:` to choose a variant: its quantisation, or its file name if other variants
 * have the same quantisation.
 */
export function selectorOf(variant: Variant, variants: readonly Variant[]): string {
  const { quantisation, files } = variant;
  const shared = variants.filter((other) => other.quantisation === quantisation).length > 1;
  return quantisation && !shared ? quantisation : files[0].path;
}

function preferred<V extends Variant>(variants: readonly V[]): readonly V[] {
  for (const quantisation of PREFERRED) {
    const found = variants.filter((variant) => variant.quantisation === quantisation);
    if (found.length > 0) return found;
  }
  return variants;
}

function selected<V extends Variant>(variants: readonly V[], selector: string): readonly V[] {
  const wanted = selector.toLowerCase();
  const byFile = variants.filter(({ stem, files }) => {
    const paths = [stem, ...files.map(({ path }) => path)];
    return paths.some((path) => path.toLowerCase() === wanted || path.toLowerCase().endsWith(`/${wanted}`));
  });
  return byFile.length > 0 ? byFile : variants.filter(({ quantisation }) => quantisation?.toLowerCase() === wanted);
}
