import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadManifest } from '@ptp/protocol/manifest';
import { defaultSampling, type SamplingParams } from '@ptp/protocol/sampling-params';
import type { DraftLimits } from '../../gateway/src/decode/controller.ts';
import type { Generator } from '../../gateway/src/decode/types.ts';
import { writeLlama } from '../llama-gguf.ts';
import { llamaPeers } from '../peers/llama-cpp.ts';
import type { Engine, Peer, Wish } from '../peers/peer.ts';
import { transformersJs } from '../peers/transformers-js.ts';
import type { Prompt } from '../prompts.ts';
import { type Bench, startServices } from '../services.ts';
import { mean, median, round } from '../statistics.ts';
import { REFERENCE } from './decode.ts';

interface Pass {
  readonly tokens: number[];
  readonly firstTokenMs: number;
  /** Of the tokens after the first block, from its coming to the last one's; NaN for a text of one block. */
  readonly tokensPerSecond: number;
  /** Over the blocks after the first, which a prompt's reading gives. */
  readonly tokensPerBlock: number;
}

interface Passes {
  readonly greedy: Pass[];
  readonly sampled: Pass[];
}

const SETTINGS = { greedy: { ...defaultSampling, temperature: 0 }, sampled: REFERENCE } satisfies Record<
  keyof Passes,
  SamplingParams
>;
/** Prompts before the measured ones. */
const WARM_UP = 4;
/** Fewer tokens have no time to measure. */
const SHORTEST = 16;
/** Layers of the target that are llama.cpp's draft model. */
const DRAFT_LAYERS = 2;

/** What the comparison lacks without a folder of one, and why. */
const NO_DRAFT_MODEL = { 'ours, autoregressive drafter': 'no --draft-model' };

/**
 * Decodes every prompt with every engine in turn, greedy and sampled, one stream at a time; an engine begins one prompt later than
 * the one before it. Each engine has one thread; of ours, drafter and verifier have one each.
 *
 * @param models the pair's folder, and that of a whole model which drafts token by token, if there is one
 */
export async function peers(
  bench: Bench,
  models: { readonly pair: string; readonly draft: string | undefined },
  limits: DraftLimits,
  prompts: readonly Prompt[],
  maxTokens: number,
): Promise<{ rows: object[] }> {
  const drafting = models.draft && (await startServices(models.pair, limits, false, models.draft));
  const folder = await mkdtemp(join(tmpdir(), 'ptp-peers-'));
  const engines: Engine[] = [];
  try {
    const paths = { target: join(folder, 'target.gguf'), draft: join(folder, 'draft.gguf') };
    await writeLlama(models.pair, paths.target);
    const draft = { path: paths.draft, name: await writeDraft(models, paths.draft) };
    const { endOfText, contextLength } = bench.generator.model;
    engines.push(await llamaPeers(paths.target, draft, endOfText, contextLength));
    engines.push(await transformersJs(models.pair, folder, endOfText));
    const others = engines.flatMap((engine) => engine.peers);
    const all = [...ours(bench, limits), ...(drafting ? [byDraftModel(drafting, limits)] : []), ...others];
    return { rows: await compare(all, prompts, maxTokens, drafting ? {} : NO_DRAFT_MODEL) };
  } finally {
    for (const { stop } of engines) await stop();
    await rm(folder, { recursive: true, force: true });
    if (drafting) await drafting.stop();
  }
}

/** The draft model in GGUF. @returns what it is */
async function writeDraft({ pair, draft }: { pair: string; draft: string | undefined }, path: string): Promise<string> {
  if (draft) {
    const { layers } = await writeLlama(draft, path);
    return `${layers} layers, trained`;
  }
  const { layers } = (await loadManifest(pair)).sizes;
  const own = Math.min(DRAFT_LAYERS, layers);
  await writeLlama(pair, path, own);
  return `the target's first ${own} of ${layers} layers, untrained as such`;
}

function byDraftModel({ another }: Bench, limits: DraftLimits): HealthWatcher {
  return { name: 'ours, autoregressive drafter', generate: generation(another({ ...limits, lookup: false })) };
}

/** Each with its own measurements, as in a server that has only this setting. The first one's greedy text is what others agree with. */
function ours({ another }: Bench, limits: DraftLimits): HealthWatcher[] {
  const ways: Record<string, DraftLimits> = {
    'no drafter': { ...limits, mode: 'plain', lookup: false },
    'prompt lookup': { ...limits, mode: 'plain', lookup: true },
    drafter: { ...limits, lookup: false },
    'drafter and prompt lookup': { ...limits, lookup: true },
  };
  return Object.entries(ways).map(([way, own]) => ({ name: `ours, ${way}`, generate: generation(another(own)) }));
}

function generation(generator: Generator): HealthWatcher['generate'] {
  return async function* (prompt, { seed, ...wish }: Wish) {
    const request = { ...wish, prompt, seed: BigInt(seed) };
    for await (const { tokens } of generator.generate(request, new AbortController().signal)) yield tokens;
  };
}

async function compare(
  all: readonly HealthWatcher[],
  prompts: readonly Prompt[],
  maxTokens: number,
  notMeasured: Readonly<Record<string, string>>,
): Promise<object[]> {
  const passes = all.map((): Passes => ({ greedy: [], sampled: [] }));
  const warmUp = prompts.slice(-WARM_UP);
  const turns = [...warmUp, ...prompts];
  for (const [turn, { tokens }] of turns.entries()) {
    for (let i = 0; i < all.length; i++) {
      const n = (turn + i) % all.length;
      for (const setting of ['greedy', 'sampled'] as const) {
        const wish = { sampling: SETTINGS[setting], seed: turn, maxTokens };
        const measured = await pass(all[n] as HealthWatcher, tokens, wish);
        if (turn >= warmUp.length) passes[n]?.[setting].push(measured);
      }
    }
    process.stderr.write(`\r${turn + 1}/${turns.length} prompts`);
  }
  process.stderr.write('\n');
  const reference = passes[0]?.greedy ?? [];
  const rows = all.map(({ name }, n) => row(name, passes[n] as Passes, reference));
  const others = Object.entries(notMeasured).map(([engine, why]) => ({ engine, agrees: `not measured: ${why}` }));
  return [...rows, ...others];
}

async function pass({ generate }: HealthWatcher, prompt: readonly number[], wish: Wish): Promise<Pass> {
  const began = performance.now();
  const tokens: number[] = [];
  let first = 0;
  let firstLength = 0;
  let blocks = 0;
  for await (const block of generate(prompt, wish)) {
    if (blocks++ === 0) {
      first = performance.now();
      firstLength = block.length;
    }
    tokens.push(...block);
  }
  const rest = tokens.length - firstLength;
  return {
    tokens,
    firstTokenMs: first - began,
    tokensPerSecond: (rest * 1000) / (performance.now() - first),
    tokensPerBlock: rest / (blocks - 1),
  };
}

/** @param reference the first engine's greedy texts, prompt by prompt */
function row(engine: string, { greedy, sampled }: Passes, reference: readonly Pass[]): object {
  const speed = (passes: readonly Pass[]) =>
    round(median(passes.filter(({ tokens }) => tokens.length >= SHORTEST).map((p) => p.tokensPerSecond)), 0);
  const differences = greedy
    .map(({ tokens }, i) => firstDifference(tokens, reference[i]?.tokens ?? []))
    .filter((position) => position >= 0);
  const equal = `${greedy.length - differences.length} of ${greedy.length}`;
  const at = differences.length > 0 ? `, others from token ${differences.join(', ')}` : '';
  return {
    engine,
    greedy: speed(greedy),
    sampled: speed(sampled),
    first_token_ms: round(median([...greedy, ...sampled].map((p) => p.firstTokenMs)), 1),
    agrees: `${equal}${at}`,
    tokens: { greedy: mean(greedy.map((p) => p.tokens.length)), sampled: mean(sampled.map((p) => p.tokens.length)) },
  };
}

/** Position of the first token that differs, or at which one text has ended; -1 for equal texts. */
export function firstDifference(one: readonly number[], other: readonly number[]): number {
  const length = Math.max(one.length, other.length);
  for (let i = 0; i < length; i++) if (one[i] !== other[i]) return i;
  return -1;
}
