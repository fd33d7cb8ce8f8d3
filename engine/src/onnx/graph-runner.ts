import { InferenceSession, Tensor } from 'onnxruntime-node';
import type { ContextSlot, SequenceId } from '../types.ts';
import { contextFeeds, type GraphIo, padded, paddedLength } from './context-feeds.ts';
import { SequenceCache } from './kv-cache.ts';
import type { OnnxModel } from './model.ts';
import { type Feeds, float32, floatResult, type Results } from './tensors.ts';

interface Graph {
  readonly slots: number;
  readonly session: InferenceSession;
}

/** Runs the graphs of a model, one for each number of slots, and owns the caches of its sequences. */
export class GraphRunner {
  readonly caches = new Map<SequenceId, SequenceCache>();
  readonly #model: OnnxModel;
  readonly #graphs: readonly Graph[];

  private constructor(model: OnnxModel, graphs: readonly Graph[]) {
    this.#model = model;
    this.#graphs = graphs;
  }

  static async load(model: OnnxModel): Promise<GraphRunner> {
    const graphs: Graph[] = [];
    for (const { slots, path } of model.graphs) {
      const session = await InferenceSession.create(path, {
        intraOpNumThreads: model.threads,
        interOpNumThreads: 1,
        logSeverityLevel: 3,
        // A thread that spins while it waits would block a core that the other services need.
        extra: { session: { intra_op: { allow_spinning: '0' } } },
      });
      if (model.kind === 'target' && !session.inputNames.includes('top_count')) {
        throw new Error(
          `${path} has no input \`top_count\`: export the model again with this version of \`ptp-train export\``,
        );
      }
      graphs.push({ slots, session });
    }
    return new GraphRunner(model, graphs);
  }

  /** Runs the smallest graph with enough slots, and appends the new rows to the caches. */
  async run<Slot extends ContextSlot, Output>(
    slots: readonly Slot[],
    { idle, feeds, outputs }: GraphIo<Slot, Output>,
  ): Promise<Output[]> {
    const graph = this.#graphs.find((candidate) => candidate.slots >= slots.length);
    if (!graph)
      throw new RangeError(`the number of slots must be at most ${this.#model.info.maxSlots}, got ${slots.length}`);
    for (const { sequence, at, tokens } of slots) this.cacheOf(sequence).prepare(at, tokens.length);

    const all = [...slots, ...Array<Slot>(graph.slots - slots.length).fill(idle)];
    const results: Results = await graph.session.run(
      tensorsFor(graph.session, {
        ...contextFeeds(all.map(padded)),
        ...this.#pastFeeds(all),
        ...feeds(all, ({ sequence }) => this.caches.get(sequence)?.tokens),
      }),
    );
    this.#append(slots, results);
    return outputs(slots, results);
  }

  cacheOf(sequence: SequenceId): SequenceCache {
    let cache = this.caches.get(sequence);
    if (!cache) {
      const { layers, rowWidth, info } = this.#model;
      cache = new SequenceCache(layers, rowWidth, info.contextLength);
      this.caches.set(sequence, cache);
    }
    return cache;
  }

  async release(): Promise<void> {
    for (const { session } of this.#graphs) await session.release();
  }

  /**
   * Builds the feeds pk{layer}_{slot} and pv{layer}_{slot}, which are views of the caches and are empty for idle slots.
   */
  #pastFeeds(slots: readonly ContextSlot[]): Feeds {
    const feeds: Feeds = {};
    const nothing = new Float32Array();
    for (const [slot, { sequence }] of slots.entries()) {
      const cache = this.caches.get(sequence);
      const dims = [1, cache?.rows ?? 0, this.#model.rowWidth];
      for (let layer = 0; layer < this.#model.layers; layer++) {
        feeds[`pk${layer}_${slot}`] = float32(cache?.past('keys', layer) ?? nothing, dims);
        feeds[`pv${layer}_${slot}`] = float32(cache?.past('values', layer) ?? nothing, dims);
      }
    }
    return feeds;
  }

  /** Appends the new rows to the caches, without the rows of padding. */
  #append(slots: readonly ContextSlot[], results: Results): void {
    const layers = [...Array(this.#model.layers).keys()];
    const keys = layers.map((layer) => floatResult(results, `nk${layer}`));
    const values = layers.map((layer) => floatResult(results, `nv${layer}`));
    let start = 0;
    for (const slot of slots) {
      this.cacheOf(slot.sequence).append(slot.tokens, { keys, values }, start);
      start += paddedLength(slot);
    }
  }
}

/** Converts the feeds for which the graph has inputs. For example, only a sequential head has `grid` and `cell`. */
function tensorsFor({ inputNames }: InferenceSession, feeds: Feeds): Record<string, Tensor> {
  const wanted = Object.entries(feeds).filter(([name]) => inputNames.includes(name));
  return Object.fromEntries(wanted.map(([name, { type, data, dims }]) => [name, new Tensor(type, data, dims)]));
}
