import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { defaultSampling } from '@ptp/protocol/sampling-params';
import type { DraftLimits, Generator } from '../../gateway/src/decode/types.ts';
import { REFERENCE } from '../passes.ts';
import { exportTarget } from '../peers/export-target.ts';
import { llamaPeers } from '../peers/llama-cpp.ts';
import type { Engine, Peer, PeerRequest } from '../peers/peer.ts';
import { transformersJs } from '../peers/transformers-js.ts';
import type { Prompt } from '../prompts.ts';
import { type Bench, startServices } from '../services.ts';
import { mean, median, round } from '../statistics.ts';
import {
  type PairBench,
  type PairOptions,
  pairOptions,
  promptsOption,
  suite,
  tokensOption,
  withPair,
} from '../suite.ts';

interface Options extends PairOptions {
  readonly tokens: number;
  readonly prompts: number;
}

/**
 * Every engine decodes every prompt, greedily and sampled, one stream at a time. The order of the engines rotates from prompt to prompt.
 * Every engine has one thread; of ours, the drafter and the verifier have one thread each.
 */
export const peers = suite<Options>(
  'peers',
  'Compare speed, time to first token and greedy texts with llama.cpp and transformers.js on the same weights. Installs both in bench/peers, and requires Python with ptp-train (PTP_PYTHON) to convert the weights. With --draft-model, also measures that model as a drafter, here and in llama.cpp.',
  [...pairOptions(), tokensOption(128), promptsOption(16)],
  (options) => withPair(options, (bench) => measure(bench, options), {}),
);

const SETTINGS = { greedy: { ...defaultSampling, temperature: 0 }, sampled: REFERENCE };
type Setting = keyof typeof SETTINGS;
/** Number of warm-up prompts. */
const WARM_UP = 4;
/** Shorter texts are left out, because they take too little time to measure. */
const MIN_TOKENS = 16;
/** Without --draft-model, this number of the target's first layers is llama.cpp's draft model. */
const DRAFT_LAYERS = 2;

async function measure(bench: PairBench, options: Options): Promise<{ rows: object[] }> {
  const { limits } = bench;
  const folder = await mkdtemp(join(tmpdir(), 'ptp-peers-'));
  const engines: Engine[] = [];
  let drafting: Bench | undefined;
  try {
    engines.push(...(await otherEngines(bench.generator, options, folder)));
    if (options.draftModel) drafting = await startServices(options.models, limits, false, options.draftModel);
    const all = [...ours(bench, limits), ...engines.flatMap((engine) => engine.peers)];
    if (drafting) {
      const generator = drafting.another({ ...limits, lookup: false });
      all.splice(4, 0, { name: 'ours, autoregressive drafter', generate: generation(generator) });
    }
    const rows = await compare(all, bench.prompts.slice(0, options.prompts), options.tokens);
    const missing = { engine: 'ours, autoregressive drafter', agrees: 'not measured: no --draft-model' };
    return { rows: drafting ? rows : [...rows, missing] };
  } finally {
    for (const { stop } of engines) await stop();
    await rm(folder, { recursive: true, force: true });
    await drafting?.stop();
  }
}

async function otherEngines({ model }: Generator, options: Options, folder: string): Promise<Engine[]> {
  const { models, draftModel } = options;
  const [target, draft, web] = ['target.gguf', 'draft.gguf', 'transformers-js'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  const layers = await exportTarget(models, 'gguf', target);
  const drafted = await exportTarget(
    draftModel ?? models,
    'gguf',
    draft,
    draftModel ? undefined : Math.min(DRAFT_LAYERS, layers),
  );
  const name = draftModel
    ? `${drafted} layers, trained`
    : `the target's first ${drafted} of ${layers} layers, untrained as such`;
  await exportTarget(models, 'transformers-js', web);
  return [
    await llamaPeers(target, { path: draft, name }, model.endOfText, model.contextLength),
    await transformersJs(web, model.endOfText),
  ];
}

/** Our ways of decoding. Each has its own measurements, as in a server with only this setting. The first one's greedy texts are the reference. */
function ours({ another }: Bench, limits: DraftLimits): Peer[] {
  const ways: Record<string, DraftLimits> = {
    'no drafter': { ...limits, mode: 'plain', lookup: false },
    'prompt lookup': { ...limits, mode: 'plain', lookup: true },
    drafter: { ...limits, lookup: false },
    'drafter and prompt lookup': { ...limits, lookup: true },
  };
  return Object.entries(ways).map(([way, own]) => ({ name: `ours, ${way}`, generate: generation(another(own)) }));
}

function generation(generator: Generator): Peer['generate'] {
  return async function* (prompt, { seed, ...request }: PeerRequest) {
    const steps = generator.generate({ ...request, prompt, seed: BigInt(seed) }, new AbortController().signal);
    for await (const { tokens } of steps) yield tokens;
  };
}

interface Pass {
  readonly tokens: readonly number[];
  readonly firstTokenMs: number;
  /** Speed after the first block; NaN for a text of one block. */
  readonly tokensPerSecond: number;
}
type Passes = Record<Setting, Pass[]>;

async function compare(all: readonly Peer[], prompts: readonly Prompt[], maxTokens: number): Promise<object[]> {
  const passes = all.map((): Passes => ({ greedy: [], sampled: [] }));
  const turns = [...prompts.slice(-WARM_UP), ...prompts];
  const warmUp = turns.length - prompts.length;
  for (const [turn, { tokens }] of turns.entries()) {
    for (let i = 0; i < all.length; i++) {
      const n = (turn + i) % all.length;
      for (const setting of Object.keys(SETTINGS) as Setting[]) {
        const request = { sampling: SETTINGS[setting], seed: turn, maxTokens };
        const pass = await decode(all[n] as Peer, tokens, request);
        if (turn >= warmUp) passes[n]?.[setting].push(pass);
      }
    }
    process.stderr.write(`\r${turn + 1}/${turns.length} prompts`);
  }
  process.stderr.write('\n');
  const reference = passes[0]?.greedy ?? [];
  return all.map(({ name }, n) => row(name, passes[n] as Passes, reference));
}

async function decode({ generate }: Peer, prompt: readonly number[], request: PeerRequest): Promise<Pass> {
  const began = performance.now();
  const blocks: (readonly number[])[] = [];
  let first = 0;
  for await (const block of generate(prompt, request)) {
    if (blocks.length === 0) first = performance.now();
    blocks.push(block);
  }
  const tokens = blocks.flat();
  const rest = tokens.length - (blocks[0]?.length ?? 0);
  return { tokens, firstTokenMs: first - began, tokensPerSecond: (rest * 1000) / (performance.now() - first) };
}

/** @param reference greedy texts to compare with, prompt by prompt */
function row(engine: string, { greedy, sampled }: Passes, reference: readonly Pass[]): object {
  const speed = (passes: readonly Pass[]) =>
    round(median(passes.filter(({ tokens }) => tokens.length >= MIN_TOKENS).map((p) => p.tokensPerSecond)), 0);
  const differences = greedy
    .map(({ tokens }, i) => firstDifference(tokens, reference[i]?.tokens ?? []))
    .filter((position) => position >= 0);
  const equal = `${greedy.length - differences.length} of ${greedy.length}`;
  return {
    engine,
    greedy: speed(greedy),
    sampled: speed(sampled),
    first_token_ms: round(median([...greedy, ...sampled].map((p) => p.firstTokenMs)), 1),
    agrees: differences.length > 0 ? `${equal}, others from token ${differences.join(', ')}` : equal,
    tokens: { greedy: mean(greedy.map((p) => p.tokens.length)), sampled: mean(sampled.map((p) => p.tokens.length)) },
  };
}

/** Position of the first difference, which may be the end of the shorter text; -1 if the texts are equal. */
function firstDifference(one: readonly number[], other: readonly number[]): number {
  const length = Math.max(one.length, other.length);
  for (let i = 0; i < length; i++) if (one[i] !== other[i]) return i;
  return -1;
}
