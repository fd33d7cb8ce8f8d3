// Thread of one ONNX model: owns its sessions and caches. `session.run` blocks its thread, which is why it isn't the main one.
import { parentPort, workerData } from 'node:worker_threads';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import {
  branchLength,
  checkedLength,
  type DraftOutput,
  type DraftSlot,
  type SequenceId,
  type TargetOutput,
  type TargetSlot,
} from '../types.ts';
import { type Checked, checkFeeds, idleCheck, idleSlot } from './check-feeds.ts';
import {
  contextFeeds,
  type DraftPart,
  draftFeeds,
  type Feeds,
  float32,
  idleContext,
  idlePart,
  type Pick,
  padded,
  pickFeeds,
  positionsOf,
  topFeeds,
} from './feeds.ts';
import { SequenceCache } from './kv-cache.ts';
import { PrefixCache } from './prefix-cache.ts';

/** What the thread is started with. */
export interface WorkerModel {
  readonly kind: 'target' | 'drafter';
  /** Ascending by slots. */
  readonly graphs: readonly { readonly slots: number; readonly path: string }[];
  /** Whether it is a drafter that checks blocks. */
  readonly checksBlocks: boolean;
  /** Layers with a cache. */
  readonly layers: number;
  /** Floats in a layer's row of keys. */
  readonly rowWidth: number;
  readonly contextLength: number;
  readonly vocabulary: number;
  /** D. */
  readonly uniformsPerPosition: number;
  readonly threads: number;
  /** Most bytes of closed sequences' caches that are kept. */
  readonly prefixCacheBytes: number;
}

export type ToWorker =
  | { readonly type: 'run'; readonly id: number; readonly slots: readonly (TargetSlot | DraftSlot)[] }
  | { readonly type: 'reuse'; readonly id: number; readonly sequence: SequenceId; readonly tokens: readonly number[] }
  | { readonly type: 'close'; readonly sequence: SequenceId }
  | { readonly type: 'stop' };

export type FromWorker =
  | { readonly type: 'ready' }
  | {
      readonly type: 'result';
      readonly id: number;
      readonly outputs: (TargetOutput | DraftOutput)[];
      readonly runMicros: number;
      /** Per slot, what its sequence's cache takes now. */
      readonly cacheBytes: readonly number[];
    }
  | { readonly type: 'reused'; readonly id: number; readonly rows: number; readonly cacheBytes: number }
  | { readonly type: 'parked'; readonly sequences: number; readonly bytes: number }
  | { readonly type: 'failed'; readonly id: number; readonly reason: string };

type Results = Readonly<Record<string, { readonly data: unknown }>>;

const model = workerData as WorkerModel;
const { uniformsPerPosition: dimensions } = model;
const port = parentPort as NonNullable<typeof parentPort>;
const caches = new Map<SequenceId, SequenceCache>();
const parked = new PrefixCache(model.prefixCacheBytes);
const sessions: { slots: number; session: InferenceSession }[] = [];
let stopping = false;

for (const { slots, path } of model.graphs) {
  const session = await InferenceSession.create(path, {
    intraOpNumThreads: model.threads,
    interOpNumThreads: 1,
    logSeverityLevel: 3,
    // A waiting thread that spins takes the core from the other services.
    extra: { session: { intra_op: { allow_spinning: '0' } } },
  });
  if (model.kind === 'target' && !session.inputNames.includes('top_count')) {
    throw new Error(`${path} is of an older \`ptp-train export\`: export it again`);
  }
  sessions.push({ slots, session });
}

let queue: Promise<void> = Promise.resolve();
port.on('message', (message: ToWorker) => {
  if (message.type === 'stop') stopping = true;
  queue = queue.then(() => handle(message));
});
port.postMessage({ type: 'ready' } satisfies FromWorker);

async function handle(message: ToWorker): Promise<void> {
  if (message.type === 'close') close(message.sequence);
  else if (message.type === 'reuse') reuse(message.id, message.sequence, message.tokens);
  else if (message.type === 'stop') await stop();
  else if (!stopping) await answer(message.id, message.slots);
}

function close(sequence: SequenceId): void {
  const cache = caches.get(sequence);
  if (!cache) return;
  caches.delete(sequence);
  parked.park(cache);
  port.postMessage({ type: 'parked', sequences: parked.sequences, bytes: parked.bytes } satisfies FromWorker);
}

/** Without the memory for a copy the sequence starts empty, as if nothing had been found. */
function reuse(id: number, sequence: SequenceId, tokens: readonly number[]): void {
  try {
    const found = parked.longest(tokens, caches.values());
    if (found) {
      cacheOf(sequence).prepare(0, found.rows);
      cacheOf(sequence).copyFrom(found.cache, found.rows);
    }
  } catch {
    caches.delete(sequence);
  }
  const { rows = 0, bytes: cacheBytes = 0 } = caches.get(sequence) ?? {};
  port.postMessage({ type: 'reused', id, rows, cacheBytes } satisfies FromWorker);
}

async function stop(): Promise<void> {
  for (const { session } of sessions) await session.release();
  port.close();
}

async function answer(id: number, slots: readonly (TargetSlot | DraftSlot)[]): Promise<void> {
  try {
    const started = performance.now();
    const outputs = await runOf(slots);
    const runMicros = Math.round((performance.now() - started) * 1000);
    const cacheBytes = slots.map((slot) => cacheOf(slot.sequence).bytes);
    const result: FromWorker = { type: 'result', id, outputs, runMicros, cacheBytes };
    port.postMessage(result, outputs.flatMap(buffersOf));
  } catch (error) {
    const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
    port.postMessage({ type: 'failed', id, reason } satisfies FromWorker);
  }
}

function runOf(slots: readonly (TargetSlot | DraftSlot)[]): Promise<(TargetOutput | DraftOutput)[]> {
  if (model.kind === 'target') return runTarget(slots as readonly TargetSlot[]);
  return model.checksBlocks ? runCheck(slots as readonly DraftSlot[]) : runDrafter(slots as readonly DraftSlot[]);
}

async function runTarget(slots: readonly TargetSlot[]): Promise<TargetOutput[]> {
  const picks: Pick[] = [];
  let row = 0;
  for (const { tokens, sampling, u, adjust } of slots) {
    if (sampling) {
      for (const i of tokens.keys()) {
        const own = (u as Float32Array).subarray(i * dimensions, (i + 1) * dimensions);
        picks.push({ row: row + i, sampling, u: own, adjust: adjust?.[i] });
      }
    }
    row += Math.max(2, tokens.length);
  }
  const mostTops = Math.max(...slots.map(({ topCount = 0 }) => topCount));
  const results = await run(slots, () => ({
    ...pickFeeds(picks, dimensions, model.vocabulary),
    ...topFeeds(mostTops),
  }));
  const ids = Int32Array.from(results.pick?.data as BigInt64Array, Number);
  const logProbabilities = results.logprob?.data as Float32Array;
  let start = 0;
  return slots.map(({ tokens, sampling, topCount = 0 }) => {
    const end = start + (sampling ? tokens.length : 0);
    const output = { picks: ids.slice(start, end), logProbabilities: logProbabilities.slice(start, end) };
    const tops = topCount > 0 && {
      topIds: Int32Array.from(firsts(results.top_id?.data as BigInt64Array, mostTops, topCount, start, end), Number),
      topLogProbabilities: Float32Array.from(
        firsts(results.top_logprob?.data as Float32Array, mostTops, topCount, start, end),
      ),
    };
    start = end;
    return { ...output, ...tops };
  });
}

/** The first `count` of the `width` columns of rows start .. end - 1. */
function* firsts<T>(
  data: Iterable<T> & { readonly [i: number]: T },
  width: number,
  count: number,
  start: number,
  end: number,
) {
  for (let row = start; row < end; row++) {
    for (let i = 0; i < count; i++) yield data[row * width + i] as T;
  }
}

async function runDrafter(slots: readonly DraftSlot[]): Promise<DraftOutput[]> {
  const parts: DraftPart[] = [];
  const results = await run(slots, (graphSlots) => {
    for (const slot of slots) parts.push(draftPart(slot));
    while (parts.length < graphSlots) parts.push(idlePart(idleContext.tokens.length, dimensions));
    return draftFeeds(parts, dimensions);
  });
  const ids = Int32Array.from(results.draft?.data as BigInt64Array, Number);
  const confidence = results.confidence?.data as Float32Array;
  let start = 0;
  return slots.map((slot, i) => {
    const branches = slot.branches.map((branch) => {
      const [from, to] = [start, start + branchLength(branch, dimensions)];
      start = to;
      return { tokens: ids.slice(from, to), confidences: confidence.slice(from, to) };
    });
    if (branches.length === 0) start += positionsOf(parts[i] as DraftPart, dimensions);
    return { branches };
  });
}

async function runCheck(slots: readonly DraftSlot[]): Promise<DraftOutput[]> {
  const results = await run(slots, (graphSlots) => {
    const parts: Checked[] = slots.map(({ at, tokens, sampling, check }) => ({
      at,
      tokens,
      sampling,
      ...(check ?? idleCheck(dimensions)),
    }));
    while (parts.length < graphSlots) parts.push({ ...idleContext, ...idleSlot, ...idleCheck(dimensions) });
    return checkFeeds(parts, dimensions);
  });
  const accepted = results.accepted?.data as BigInt64Array;
  const given = results.given?.data as BigInt64Array;
  const ids = results.draft?.data as BigInt64Array;
  const confidence = results.confidence?.data as Float32Array;
  const steps = ids.length / given.length;
  return slots.map(({ check }, i) => {
    if (!check) return { branches: [] };
    const [from, count] = [i * steps, checkedLength(check, dimensions) - 1];
    const tokens = Int32Array.from([given[i] ?? 0n, ...ids.slice(from, from + count)], Number);
    // the first is the target's own token but for the rounding of the drafter's copy of it
    const confidences = Float32Array.from([1, ...confidence.slice(from, from + count)]);
    return { branches: [{ accepted: Number(accepted[i]), tokens, confidences }] };
  });
}

/** A slot's branches with the token before each, which is new or in the cache. */
function draftPart(slot: DraftSlot): DraftPart {
  const context = slot.at + Math.max(2, slot.tokens.length);
  if (slot.branches.length === 0) return idlePart(context, dimensions);
  const { tokens } = cacheOf(slot.sequence);
  const branches = slot.branches.map((branch) => {
    const index = branch.visible - 1;
    return { ...branch, last: (index < slot.at ? tokens[index] : slot.tokens[index - slot.at]) ?? 0 };
  });
  return { context, sampling: slot.sampling, branches };
}

/** Runs the smallest graph that fits, with the model's own feeds beside the context's, and appends the new rows. */
async function run(
  slots: readonly (TargetSlot | DraftSlot)[],
  ownFeeds: (graphSlots: number) => Feeds,
): Promise<Results> {
  const graph = sessions.find((candidate) => candidate.slots >= slots.length);
  if (!graph) throw new RangeError(`no graph for ${slots.length} slots`);
  for (const { sequence, at, tokens } of slots) cacheOf(sequence).prepare(at, tokens.length);

  const contexts = slots.map(({ at, tokens }) => padded({ past: at, tokens }));
  while (contexts.length < graph.slots) contexts.push(idleContext);
  const feeds = { ...contextFeeds(contexts), ...pastFeeds(slots, graph.slots), ...ownFeeds(graph.slots) };
  const tensors = tensorsFor(graph.session, feeds);
  const results: Results = await graph.session.run(tensors);

  const layers = [...Array(model.layers).keys()];
  const newKeys = layers.map((layer) => results[`nk${layer}`]?.data as Float32Array);
  const newValues = layers.map((layer) => results[`nv${layer}`]?.data as Float32Array);
  let start = 0;
  for (const { sequence, tokens } of slots) {
    cacheOf(sequence).append(tokens, newKeys, newValues, start);
    start += Math.max(2, tokens.length);
  }
  return results;
}

/**
 * The feeds that the graph has an input for: `grid` and `cell` are for a drafter with a sequential head only, and graphs from before
 * 2026-11-25 have no `excluded`.
 */
function tensorsFor({ inputNames }: InferenceSession, feeds: Feeds): Record<string, Tensor> {
  const wanted = Object.entries(feeds).filter(([name]) => inputNames.includes(name));
  return Object.fromEntries(wanted.map(([name, { type, data, dims }]) => [name, new Tensor(type, data, dims)]));
}

/** pk{layer}_{slot} and pv{layer}_{slot}: views of the caches, empty for idle slots. */
function pastFeeds(slots: readonly (TargetSlot | DraftSlot)[], graphSlots: number): Feeds {
  const feeds: Feeds = {};
  const nothing = new Float32Array();
  for (let slot = 0; slot < graphSlots; slot++) {
    const used = slots[slot];
    const cache = used && cacheOf(used.sequence);
    const dims = [1, cache?.rows ?? 0, model.rowWidth];
    for (let layer = 0; layer < model.layers; layer++) {
      feeds[`pk${layer}_${slot}`] = float32(cache?.past('keys', layer) ?? nothing, dims);
      feeds[`pv${layer}_${slot}`] = float32(cache?.past('values', layer) ?? nothing, dims);
    }
  }
  return feeds;
}

function cacheOf(sequence: SequenceId): SequenceCache {
  let cache = caches.get(sequence);
  if (!cache) {
    cache = new SequenceCache(model.layers, model.rowWidth, model.contextLength);
    caches.set(sequence, cache);
  }
  return cache;
}

/** The output's buffers, which are moved to the main thread rather than copied. */
function buffersOf(output: TargetOutput | DraftOutput): ArrayBuffer[] {
  const arrays =
    'branches' in output
      ? output.branches.flatMap(({ tokens, confidences }) => [tokens, confidences])
      : [output.picks, output.logProbabilities, output.topIds, output.topLogProbabilities];
  return arrays.flatMap((array) => (array ? [array.buffer as ArrayBuffer] : []));
}
