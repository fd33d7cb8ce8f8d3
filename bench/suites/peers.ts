import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { defaultSampling } from '@ptp/protocol/sampling-params';
import { hubConfig } from '@ptp/service-kit/models/hub-config';
import type { DraftLimits, Generator } from '../../gateway/src/decode/types.ts';
import { installLlama } from '../../scripts/start-llama.ts';
import { REFERENCE, showProgress } from '../passes.ts';
import { exportTarget } from '../peers/export-target.ts';
import { llamaPeers } from '../peers/llama-cpp.ts';
import type { Engine, Peer, PeerRequest } from '../peers/peer.ts';
import { transformersJs } from '../peers/transformers-js.ts';
import { type Bench, startServices } from '../services.ts';
import { median, round } from '../statistics.ts';
import { type PairBench, pairSuite } from '../suite.ts';

/**
 * Every engine decodes every prompt, greedily and sampled, one stream at a time. The order of the engines rotates from
 * prompt to prompt. Every engine has one thread. In our server, the drafter and the verifier have one thread each.
 */
export const peers = pairSuite({
  name: 'peers',
  description:
    'Compare speed, time to first token and greedy texts with llama.cpp and transformers.js on the same weights. Requires `npm install` in bench/peers, and Python with ptp-train (PTP_PYTHON) to convert the weights. With --draft-model, also measures that model as a drafter, here and in llama.cpp.',
  counts: { tokens: 128, prompts: 16 },
  services: { draftModel: undefined },
  run: measure,
});

const SETTINGS = { greedy: { ...defaultSampling, temperature: 0 }, sampled: REFERENCE };
type Setting = keyof typeof SETTINGS;
/** Number of warm-up prompts. */
const WARM_UP = 4;
/** Minimum number of tokens in a text. Shorter texts take too little time to measure. */
const MIN_TOKENS = 16;

async function measure(bench: PairBench): Promise<{ rows: object[] }> {
  const { models, draftModel, tokens } = bench.options;
  const { endOfText, contextLength } = bench.generator.model;
  const folder = await mkdtemp(join(tmpdir(), 'ptp-peers-'));
  const engines: Engine[] = [];
  try {
    const [target, web] = [join(folder, 'target.gguf'), join(folder, 'transformers-js')];
    await exportTarget(models, 'gguf', target);
    await exportTarget(models, 'transformers-js', web);
    const draft = draftModel ? join(folder, 'draft.gguf') : undefined;
    const layers = draftModel && draft ? await exportTarget(draftModel, 'gguf', draft) : 0;
    engines.push(await ours(bench), await oursOnGguf(bench, target));
    const llamaDraft = draft && { path: draft, name: `${layers} layers, trained` };
    engines.push(await llamaPeers(target, llamaDraft || undefined, endOfText, contextLength));
    engines.push(await transformersJs(web, endOfText));
    const all = engines.flatMap((engine) => engine.peers);
    return { rows: await compare(all, bench.prompts, tokens) };
  } finally {
    for (const { stop } of engines) await stop();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Returns our ways of decoding. The greedy texts of the first way are the reference. */
async function ours({ another, limits, options }: PairBench): Promise<Engine> {
  const { models, draftModel } = options;
  const drafting = draftModel ? await startServices(models, limits, { draftModel }) : undefined;
  const peers = waysOf('ours', another, limits);
  if (drafting) {
    const generator = drafting.another({ ...limits, lookup: false });
    peers.push(peerOf('ours, autoregressive drafter', generator));
  }
  return { peers, stop: async () => drafting?.stop() };
}

/** Returns our ways of decoding a GGUF of the target, with the drafter of the model folder. */
async function oursOnGguf({ limits, options }: PairBench, target: string): Promise<Engine> {
  await installLlama((await hubConfig(process.env)).ownCacheDir);
  const { another, stop } = await startServices(target, limits, { draftModel: options.models });
  return { peers: waysOf('ours with llama.cpp', another, limits), stop };
}

/** Returns the ways of decoding with one pair, each with its own measurements, as in a server with only this setting. */
function waysOf(name: string, another: Bench['another'], limits: DraftLimits): Peer[] {
  const ways: Record<string, DraftLimits> = {
    'no drafter': { ...limits, mode: 'plain', lookup: false },
    'prompt lookup': { ...limits, mode: 'plain', lookup: true },
    drafter: { ...limits, lookup: false },
    'drafter and prompt lookup': { ...limits, lookup: true },
  };
  return Object.entries(ways).map(([way, own]) => peerOf(`${name}, ${way}`, another(own)));
}

function peerOf(name: string, generator: Generator): Peer {
  async function* generate(prompt: readonly number[], { seed, ...request }: PeerRequest) {
    const steps = generator.generate({ ...request, prompt, seed: BigInt(seed) }, new AbortController().signal);
    for await (const { tokens } of steps) yield tokens;
  }
  return { name, generate };
}

type Pass = Awaited<ReturnType<typeof decode>>;
type Passes = Record<Setting, Pass[]>;

async function compare(all: readonly Peer[], prompts: readonly number[][], maxTokens: number): Promise<object[]> {
  const passes = all.map((): Passes => ({ greedy: [], sampled: [] }));
  const turns = [...prompts.slice(-WARM_UP), ...prompts];
  for (const [turn, prompt] of turns.entries()) {
    for (let i = 0; i < all.length; i++) {
      const n = (turn + i) % all.length;
      for (const setting of Object.keys(SETTINGS) as Setting[]) {
        const pass = await decode(all[n] as Peer, prompt, { sampling: SETTINGS[setting], seed: turn, maxTokens });
        if (turn >= turns.length - prompts.length) passes[n]?.[setting].push(pass);
      }
    }
    showProgress(turn + 1, turns.length);
  }
  return all.map(({ name }, n) => row(name, passes[n] as Passes, passes[0]?.greedy ?? []));
}

/** Decodes one prompt. The speed excludes the first block, and is NaN for a text of one block. */
async function decode({ generate }: Peer, prompt: readonly number[], request: PeerRequest) {
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
  };
}

/**
 * Returns the position of the first difference, which may be the end of the shorter text, or -1 if the texts are equal.
 */
function firstDifference(one: readonly number[], other: readonly number[]): number {
  const length = Math.max(one.length, other.length);
  for (let i = 0; i < length; i++) if (one[i] !== other[i]) return i;
  return -1;
}
