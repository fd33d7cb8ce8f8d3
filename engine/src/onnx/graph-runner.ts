import { InferenceSession, listSupportedBackends, Tensor } from 'onnxruntime-node';
import type { ContextSlot, SequenceId } from '../types.ts';
import { bindCaches, type CacheBinding } from './cache-binding.ts';
import { contextFeeds, type GraphIo, padded, paddedLength, tokenFeeds } from './context-feeds.ts';
import { cacheOutputs, disposeCaches } from './device-cache.ts';
import { DeviceError } from './device-error.ts';
import type { KvCache } from './kv-cache.ts';
import type { OnnxModel } from './model.ts';
import type { DeviceFeeds, Feed, Results } from './tensors.ts';

interface Graph {
  readonly slots: number;
  readonly session: InferenceSession;
  /** Outputs that onnxruntime allocates. */
  readonly results: Readonly<Record<string, null>>;
}

/** Names of outputs that a graph writes into the caches. */
const IN_CACHE = /^n[kv]\d/;

/** Runs the graphs of a model, one for each number of slots, and owns the caches of its sequences. */
export class GraphRunner {
  readonly caches = new Map<SequenceId, KvCache>();
  readonly #model: OnnxModel;
  readonly #graphs: readonly Graph[];
  readonly #binding: CacheBinding;

  private constructor(model: OnnxModel, graphs: readonly Graph[]) {
    this.#model = model;
    this.#graphs = graphs;
    this.#binding = bindCaches(model, this.caches);
  }

  /** Loads the graphs of a model. @param options additional options of the sessions */
  static async load(model: OnnxModel, options: InferenceSession.SessionOptions = {}): Promise<GraphRunner> {
    if (!listSupportedBackends().some(({ name }) => name === model.device)) {
      throw new Error('this build of onnxruntime has no WebGPU');
    }
    const graphs: Graph[] = [];
    for (const { slots, path } of model.graphs) {
      const session = await InferenceSession.create(path, {
        executionProviders: [model.device],
        ...(model.onDevice && model.device === 'webgpu' && { preferredOutputLocation: cacheOutputs(model, slots) }),
        intraOpNumThreads: model.threads,
        interOpNumThreads: 1,
        logSeverityLevel: 3,
        // onnxruntime keeps a memory plan for every combination of shapes, and each step of a long text has new shapes.
        enableMemPattern: !model.inPlace,
        // A thread that spins while it waits would block a core that the other services need.
        extra: { session: { intra_op: { allow_spinning: '0' } } },
        ...options,
      });
      if (model.kind === 'target' && !session.inputNames.includes('top_count')) {
        throw new Error(
          `${path} has no input \`top_count\`: export the model again with this version of \`ptp-train export\``,
        );
      }
      const own = session.outputNames.filter((name) => !(model.inPlace && IN_CACHE.test(name)));
      graphs.push({ slots, session, results: Object.fromEntries(own.map((name) => [name, null])) });
    }
    return new GraphRunner(model, graphs);
  }

  /** Runs the smallest graph with enough slots, and adds the new rows to the caches. */
  async run<Slot extends ContextSlot, Output>(
    slots: readonly Slot[],
    { idle, feeds, repeat, outputs }: GraphIo<Slot, Output>,
  ): Promise<Output[]> {
    const graph = this.#graphs.find((candidate) => candidate.slots >= slots.length);
    if (!graph)
      throw new RangeError(`the number of slots must be at most ${this.#model.info.maxSlots}, got ${slots.length}`);
    const { inPlace, onDevice, minRows } = this.#model;
    for (const slot of slots) this.cacheOf(slot.sequence).prepare(slot.at, paddedLength(slot, minRows));

    const all = inPlace ? slots : [...slots, ...Array<Slot>(graph.slots - slots.length).fill(idle)];
    const rows = all.map((slot) => padded(slot, minRows));
    const inputs = tensorsFor(graph.session.inputNames, {
      ...(onDevice ? tokenFeeds : contextFeeds)(rows, graph.slots),
      ...this.#binding.feeds(all, graph.slots),
      ...feeds(all, ({ sequence }) => this.caches.get(sequence)?.tokens),
    });
    const fetches = { ...graph.results, ...tensorsFor(graph.session.outputNames, this.#binding.outputs(slots)) };
    let results = await this.#execute(graph, inputs, fetches);
    for (let changes = repeat?.(slots, results); changes; changes = repeat?.(slots, results)) {
      disposeCaches(results);
      results = await this.#execute(graph, { ...inputs, ...tensorsFor(graph.session.inputNames, changes) }, fetches);
    }
    this.#binding.finish(slots, results);
    return outputs(slots, results);
  }

  async #execute(
    { session }: Graph,
    inputs: InferenceSession.FeedsType,
    fetches: InferenceSession.FetchesType,
  ): Promise<Results> {
    return session.run(inputs, fetches).catch((cause: unknown) => {
      if (this.#model.device === 'cpu') throw cause;
      throw new DeviceError(`the GPU has failed: ${cause}`, { cause });
    });
  }

  cacheOf(sequence: SequenceId): KvCache {
    let cache = this.caches.get(sequence);
    if (!cache) {
      cache = this.#binding.create();
      this.caches.set(sequence, cache);
    }
    return cache;
  }

  async release(): Promise<void> {
    for (const { session } of this.#graphs) await session.release();
  }
}

/** Converts the tensors whose names the graph has. For example, only a sequential head has `grid` and `cell`. */
function tensorsFor(names: readonly string[], feeds: DeviceFeeds): Record<string, Tensor> {
  const known = new Set(names);
  const wanted = Object.entries(feeds).filter(([name]) => known.has(name));
  return Object.fromEntries(wanted.map(([name, feed]) => [name, tensorOf(feed)]));
}

/** Creates a tensor that shares the memory of the feed's data, unless the feed is a tensor. */
function tensorOf(feed: Feed | Tensor): Tensor {
  if (feed instanceof Tensor) return feed;
  const { type, data, dims } = feed as Feed;
  if (type !== 'float16') return new Tensor(type, data, dims);
  // The constructor turns `data` into a Float16Array if JavaScript has one, which onnxruntime 1.30 reads as empty.
  return Object.assign(new Tensor('uint16', data, dims), { type });
}
