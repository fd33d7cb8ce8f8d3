import { unusable } from './errors.ts';

/** The parts of a tokenizer.json from which the ids of special tokens follow. */
interface TokenizerJson {
  readonly model?: {
    readonly type?: string;
    readonly vocab?: Readonly<Record<string, number>>;
    readonly byte_fallback?: boolean;
  };
  readonly added_tokens?: readonly { readonly id: number; readonly content: string; readonly special?: boolean }[];
  readonly decoder?: { readonly type?: string; readonly decoders?: readonly { readonly type?: string }[] } | null;
  readonly post_processor?: PostProcessor | null;
}

/** Step of the tokenizer that adds special tokens to a text. */
interface PostProcessor {
  readonly type?: string;
  readonly processors?: readonly PostProcessor[];
  /** Of a TemplateProcessing: the parts of an encoded text. */
  readonly single?: readonly { readonly SpecialToken?: { readonly id: string }; readonly Sequence?: unknown }[];
  readonly special_tokens?: Readonly<Record<string, { readonly ids: readonly number[] }>>;
  /** Of a BertProcessing or RobertaProcessing: name and id of the first token. */
  readonly cls?: readonly [string, number];
}

/** Tokenizer of a Hugging Face folder. */
export interface HfTokenizer {
  /** Returns the id of a token's name, or undefined if there is no such token. */
  id(name: string): number | undefined;
  /** Token that the tokenizer adds before a text, or null if it adds none. */
  readonly firstToken: number | null;
}

/**
 * Reads a tokenizer.json.
 *
 * @param source content of the file
 * @throws PtpError `failed_precondition` if the gateway cannot use the tokenizer, or a text could get an id that is not
 *   below `vocab`
 */
export function readTokenizer(path: string, source: string, vocab: number): HfTokenizer {
  const file = parse(path, source);
  checkKind(path, file);
  const added = file.added_tokens ?? [];
  const ids = new Map(Object.entries(file.model?.vocab ?? {}));
  for (const { content, id } of added) ids.set(content, id);
  // Special tokens never come from a text. Gemma 3 has one for images that its text model does not know.
  const ignored = new Set(added.filter(({ special }) => special).map(({ content }) => content));
  let highest = 0;
  for (const [name, id] of ids) if (id > highest && !ignored.has(name)) highest = id;
  if (highest >= vocab) {
    throw unusable(path, `must have token ids below \`vocab_size\` ${vocab} of \`config.json\`, got ${highest}`);
  }
  const before = tokensBefore(file.post_processor);
  if (before.length > 1) throw unusable(path, `must add at most 1 token before a text, got ${before.length}`);
  return { id: (name) => ids.get(name), firstToken: before[0] ?? null };
}

function parse(path: string, source: string): TokenizerJson {
  try {
    return JSON.parse(source);
  } catch (cause) {
    throw unusable(path, 'must be JSON', cause);
  }
}

function checkKind(path: string, { model, decoder }: TokenizerJson): void {
  const kinds = [decoder, ...(decoder?.decoders ?? [])].flatMap((part) => part?.type ?? []);
  const fallsBack = model?.byte_fallback === true && kinds.includes('ByteFallback');
  if (model?.type === 'BPE' && (kinds.includes('ByteLevel') || fallsBack)) return;
  const actual = `\`model.type\` ${model?.type} with decoders ${kinds.join(', ') || 'none'}`;
  throw unusable(path, `must be a byte-level BPE or a BPE with byte fallback, got ${actual}`);
}

/** Returns the tokens that a post-processor adds before a text. */
function tokensBefore(processor: PostProcessor | null | undefined): number[] {
  if (!processor) return [];
  const { type, processors = [], single = [], special_tokens: special = {}, cls } = processor;
  if (type === 'Sequence') return processors.toReversed().flatMap(tokensBefore);
  if (type !== 'TemplateProcessing') return cls ? [cls[1]] : [];
  const text = single.findIndex((part) => part.Sequence !== undefined);
  return single.slice(0, Math.max(0, text)).flatMap(({ SpecialToken: token }) => special[token?.id ?? '']?.ids ?? []);
}
