import type { MessageInitShape } from '@bufbuild/protobuf';
import { PtpError, toPtpError, wireErrors } from '@ptp/protocol/errors';
import {
  EngineService,
  type GetEngineResponseSchema,
  type DraftSlot as ProtoDraftSlot,
  type TargetSlot as ProtoTargetSlot,
  type RunRequest,
  type RunResponseSchema,
} from '@ptp/protocol/gen/ptp/v1/engine_pb';
import { receivedSampling } from '@ptp/protocol/sampling-params';
import { type ImplementedService, implement } from '@ptp/protocol/server';
import { usageMessage } from '../status-messages.ts';
import type {
  DraftEngine,
  DraftOutput,
  DraftSlot,
  SequenceId,
  TargetEngine,
  TargetOutput,
  TargetSlot,
} from '../types.ts';

type Response = MessageInitShape<typeof RunResponseSchema>;

/** Serves an engine of this process as an engine in another process is served, for tests and benchmarks. */
export function engineService(engine: TargetEngine | DraftEngine): ImplementedService {
  return implement(EngineService, {
    getEngine: () => description(engine),
    run: (requests) => run(engine, requests),
  });
}

/** Largest value of `max_sequences`. */
const MANY = 2 ** 31;

function description(engine: TargetEngine | DraftEngine): MessageInitShape<typeof GetEngineResponseSchema> {
  const { vocabulary, maxSequences, ...info } = engine.info;
  const sizes = { vocabularySize: vocabulary, maxSequences: Math.min(maxSequences, MANY), ...info };
  const described = { model: 'test', precision: 'float32', device: 'cpu', ...sizes };
  if (!isDrafter(engine)) return described;
  const { checksBlocks, maxBranchLength, yieldCurve, yieldCurveAfterMiss } = engine;
  const curves = { yieldCurve: [...yieldCurve], yieldCurveAfterMiss: [...yieldCurveAfterMiss] };
  return { ...described, drafter: { checksBlocks, maxBranchLength, ...curves } };
}

async function* run(engine: TargetEngine | DraftEngine, requests: AsyncIterable<RunRequest>): AsyncGenerator<Response> {
  /** The engine's sequences by the ids that the client chose. */
  const sequences = new Map<number, SequenceId>();
  try {
    for await (const { id, kind } of requests) {
      if (kind.case === 'open') sequences.set(kind.value.sequence, engine.open());
      else if (kind.case === 'close') close(engine, sequences, kind.value.sequence);
      else yield { id, kind: await answer(engine, sequences, kind) };
    }
  } finally {
    for (const sequence of sequences.values()) engine.close(sequence);
  }
}

function close(engine: TargetEngine | DraftEngine, sequences: Map<number, SequenceId>, id: number): void {
  const sequence = sequences.get(id);
  if (sequence !== undefined) engine.close(sequence);
  sequences.delete(id);
}

async function answer(
  engine: TargetEngine | DraftEngine,
  sequences: ReadonlyMap<number, SequenceId>,
  kind: RunRequest['kind'],
): Promise<NonNullable<Response['kind']>> {
  const sequenceOf = (id: number): SequenceId => {
    const sequence = sequences.get(id);
    if (sequence === undefined) throw new PtpError('not_found', `sequence ${id} is not open`);
    return sequence;
  };
  try {
    if (kind.case === 'reusePrefix') {
      const { sequence, tokens } = kind.value;
      const rows = await engine.reusePrefix(sequenceOf(sequence), tokens);
      return { case: 'reused', value: { rows, cache: usageMessage(engine).prefixCache } };
    }
    if (kind.case === 'target' && !isDrafter(engine)) {
      const slots = kind.value.slots.map((slot) => targetSlot(slot, sequenceOf(slot.sequence), engine.info.vocabulary));
      const { outputs, runMicros: runUs } = await engine.run(slots);
      return { case: 'target', value: { runUs, outputs: outputs.map(targetOutput) } };
    }
    if (kind.case === 'draft' && isDrafter(engine)) {
      const slots = kind.value.slots.map((slot) => draftSlot(slot, sequenceOf(slot.sequence), engine.info.vocabulary));
      const { outputs, runMicros: runUs } = await engine.run(slots);
      return { case: 'draft', value: { runUs, outputs: outputs.map(draftOutput) } };
    }
    throw new PtpError('invalid_argument', `this engine does not answer \`${kind.case}\``);
  } catch (error) {
    const { code, message } = toPtpError(error);
    if (code === 'unavailable') throw error; // The engine is dead, so its stream ends.
    return { case: 'error', value: { code: wireErrors[code].grpc, message } };
  }
}

function isDrafter(engine: TargetEngine | DraftEngine): engine is DraftEngine {
  return 'checksBlocks' in engine;
}

function targetSlot(slot: ProtoTargetSlot, sequence: SequenceId, vocabulary: number): TargetSlot {
  const { at, tokens, sampling, uniforms, adjustments, topCount } = slot;
  if (!sampling || !uniforms) return { sequence, at, tokens };
  const adjust = adjustments.map(({ scaled, scale, biased, biases, allowed }) => ({
    scaled: Int32Array.from(scaled),
    scale,
    biased: Int32Array.from(biased),
    biases: Float32Array.from(biases),
    ...(allowed.length > 0 && { allowed }),
  }));
  const picking = { sampling: receivedSampling(sampling, vocabulary), uniforms, topCount };
  return { sequence, at, tokens, ...picking, ...(adjust.length > 0 && { adjust }) };
}

function draftSlot(slot: ProtoDraftSlot, sequence: SequenceId, vocabulary: number): DraftSlot {
  const { at, tokens, sampling, uniforms = { seed: 0n, offset: 0 }, branches, check } = slot;
  const read = { sequence, at, tokens, sampling: receivedSampling(sampling, vocabulary), uniforms };
  const requests = branches.map(({ visible, length, excluded }) => ({
    visible,
    length,
    ...(excluded !== undefined && { excluded }),
  }));
  return { ...read, branches: requests, ...(check && { check }) };
}

function targetOutput({ picks, logProbabilities, topIds = new Int32Array(), topLogProbabilities }: TargetOutput) {
  return {
    picks: [...picks],
    logProbabilities: [...logProbabilities],
    topIds: [...topIds],
    topLogProbabilities: [...(topLogProbabilities ?? [])],
  };
}

function draftOutput({ branches }: DraftOutput) {
  return {
    branches: branches.map(({ tokens, confidences, accepted }) => ({
      tokens: [...tokens],
      confidences: [...confidences],
      ...(accepted !== undefined && { accepted }),
    })),
  };
}
