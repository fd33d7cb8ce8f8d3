import type { Streams } from '../decode/ports.ts';
import type { GenerationRequest, GenerationStep, Generator, Health, ModelInfo, OnSpan } from '../decode/types.ts';
import { RecordedStreams } from './recorded-streams.ts';
import type { RequestTrace } from './request-trace.ts';
import type { TraceStore } from './trace-store.ts';

/** A generator whose requests are kept in a store, with the calls that its streams make. */
export class RecordedGenerator implements Generator {
  readonly #store: TraceStore;
  readonly #inner: Generator;
  /** Traces of the requests under way; the streams are given the request that the loop was given. */
  readonly #traces = new WeakMap<GenerationRequest, RequestTrace>();

  /** @param loop over streams that are watched */
  constructor(store: TraceStore, streams: Streams, loop: (streams: Streams) => Generator) {
    this.#store = store;
    this.#inner = loop(new RecordedStreams(streams, (request) => this.#traces.get(request)));
  }

  get model(): ModelInfo {
    return this.#inner.model;
  }

  health(): Health {
    return this.#inner.health();
  }

  async *generate(given: GenerationRequest, signal: AbortSignal, onSpan?: OnSpan): AsyncGenerator<GenerationStep> {
    // two generations of one request object are two requests
    const request = { ...given };
    const trace = this.#store.begin(request, this.model);
    this.#traces.set(request, trace);
    let finish: GenerationStep['finish'];
    let failed = false;
    try {
      for await (const step of this.#inner.generate(request, signal, onSpan)) {
        trace.step(step);
        finish = step.finish;
        yield step;
      }
    } catch (error) {
      failed = true;
      trace.end('failed', error);
      throw error;
    } finally {
      // who stops reading has found a stop string, or is gone
      if (!failed) trace.end(finish ?? (signal.aborted ? 'cancelled' : 'stop'));
      this.#store.ended(trace);
    }
  }
}
