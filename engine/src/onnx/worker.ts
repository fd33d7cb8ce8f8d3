// Worker thread for one ONNX model. The thread owns the model's sessions and caches. `session.run` blocks, and the main
// thread must not block.
import { parentPort, workerData } from 'node:worker_threads';
import type { DraftOutput, DraftSlot, SequenceId, TargetOutput, TargetSlot } from '../types.ts';
import { checkIo } from './check-feeds.ts';
import { DeviceError } from './device-error.ts';
import { branchIo } from './draft-feeds.ts';
import { gpuTargetIo } from './gpu-target-feeds.ts';
import { GraphRunner } from './graph-runner.ts';
import type { FromWorker, ReuseAnswer, RunAnswer, ToWorker } from './messages.ts';
import type { OnnxModel } from './model.ts';
import { PrefixCache } from './prefix-cache.ts';
import { targetIo } from './target-feeds.ts';

const model = workerData as OnnxModel;
const port = parentPort as NonNullable<typeof parentPort>;
const runner = await GraphRunner.load(model);
const parked = new PrefixCache(model.prefixCacheBytes);
let stopping = false;

const { uniformsPerPosition: dimensions, vocabulary } = model.info;
const target = (model.onDevice ? gpuTargetIo : targetIo)(dimensions, vocabulary, model.minRows);
const drafter = model.checksBlocks ? checkIo(dimensions, model.minRows) : branchIo(dimensions, model.minRows);

let queue: Promise<void> = Promise.resolve();
port.on('message', (message: ToWorker) => {
  if (message.type === 'stop') stopping = true;
  queue = queue.then(() => handle(message));
});
post({ type: 'ready' });

function post(message: FromWorker, moved: readonly ArrayBuffer[] = []): void {
  port.postMessage(message, moved);
}

async function handle(message: ToWorker): Promise<void> {
  if (message.type === 'stop') {
    await runner.release();
    port.close();
  } else if (message.type === 'close') {
    close(message.sequence);
  } else if (message.type === 'reuse') {
    post({ type: 'answer', id: message.id, answer: reuse(message.sequence, message.tokens) });
  } else if (!stopping) {
    await answer(message.id, message.slots);
  }
}

function close(sequence: SequenceId): void {
  const cache = runner.caches.get(sequence);
  if (!cache) return;
  runner.caches.delete(sequence);
  parked.park(cache);
  post({ type: 'parked', sequences: parked.sequences, bytes: parked.bytes, droppedTokens: parked.droppedRows });
}

function reuse(sequence: SequenceId, tokens: readonly number[]): ReuseAnswer {
  try {
    const found = parked.longest(tokens, runner.caches.values());
    if (found) {
      const cache = runner.cacheOf(sequence);
      cache.prepare(0, found.rows);
      cache.copyFrom(found.cache, found.rows);
    }
  } catch {
    runner.caches.get(sequence)?.release();
    runner.caches.delete(sequence); // If memory is exhausted, start with an empty cache, as if nothing had been found.
  }
  const { rows = 0, bytes: cacheBytes = 0 } = runner.caches.get(sequence) ?? {};
  return { rows, cacheBytes };
}

async function answer(id: number, slots: readonly (TargetSlot | DraftSlot)[]): Promise<void> {
  try {
    const started = performance.now();
    const outputs =
      model.kind === 'target'
        ? await runner.run(slots as readonly TargetSlot[], target)
        : await runner.run(slots as readonly DraftSlot[], drafter);
    const runMicros = Math.round((performance.now() - started) * 1000);
    const cacheBytes = slots.map(({ sequence }) => runner.cacheOf(sequence).bytes);
    const result: RunAnswer = { outputs, runMicros, cacheBytes };
    post({ type: 'answer', id, answer: result }, outputs.flatMap(buffersOf));
  } catch (error) {
    if (error instanceof DeviceError) throw error; // This ends the thread, and with it the engine.
    const reason = error instanceof Error ? (error.stack ?? error.message) : String(error);
    post({ type: 'failed', id, reason });
  }
}

/** Returns the buffers of an output, which move to the main thread without a copy. */
function buffersOf(output: TargetOutput | DraftOutput): ArrayBuffer[] {
  const arrays =
    'branches' in output
      ? output.branches.flatMap(({ tokens, confidences }) => [tokens, confidences])
      : [output.picks, output.logProbabilities, output.topIds, output.topLogProbabilities];
  return arrays.flatMap((array) => (array ? [array.buffer as ArrayBuffer] : []));
}
