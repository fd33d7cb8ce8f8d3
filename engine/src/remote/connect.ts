import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type ServiceClient } from '@ptp/protocol/client';
import { PtpError, toPtpError } from '@ptp/protocol/errors';
import { EngineService, type GetEngineResponse } from '@ptp/protocol/gen/ptp/v1/engine_pb';
import { loadManifest, type Manifest } from '@ptp/protocol/manifest';
import { Backoff } from '@ptp/service-kit/backoff';
import { startError } from '../start-error.ts';
import type { EngineInfo, EngineOptions } from '../types.ts';

/** Time limits in milliseconds. */
export interface RemoteLimits {
  /** Time that a starting service waits for an engine, which may still be loading its model. */
  readonly start: number;
  /** Time after which an engine that has not answered a request counts as dead. */
  readonly request: number;
}

/** The first run of an engine may compile kernels, and a chunk of a prompt takes seconds on a CPU. */
export const defaultLimits: RemoteLimits = { start: 600_000, request: 120_000 };

/** Connected engine. */
export interface Connected {
  readonly client: ServiceClient<typeof EngineService>;
  readonly info: EngineInfo;
  readonly drafter: GetEngineResponse['drafter'];
  readonly limits: RemoteLimits;
}

/** Time in milliseconds after which an engine that accepts connections but does not answer is called again. */
const ANSWER_MS = 5_000;

/** gRPC status of a server that does not have the method. */
const UNIMPLEMENTED = 12;

/**
 * Connects to the engine at `options.address` once it is ready, and compares it with the model.
 *
 * @throws PtpError `failed_precondition` if the engine is not ready in time or runs another model
 */
export async function connectEngine(options: EngineOptions, limits: RemoteLimits): Promise<Connected> {
  const { dir, contextLength, address = '', logger } = options;
  const manifest = await loadManifest(dir, contextLength);
  const client = connect(EngineService, address, { apart: true });
  try {
    const engine = await readyEngine(client, options, limits.start);
    const { drafter, model, precision, device } = engine;
    logger?.info({ address, model, precision, device }, 'connected to the engine');
    return { client, info: engineInfo(engine, manifest, address), drafter, limits };
  } catch (error) {
    client.close();
    throw error;
  }
}

async function readyEngine(
  client: Connected['client'],
  { address, logger }: EngineOptions,
  limitMs: number,
): Promise<GetEngineResponse> {
  const end = performance.now() + limitMs;
  const backoff = new Backoff(100, 2_000);
  for (let attempt = 1; ; attempt++) {
    const answer = await client.getEngine({}, { deadlineMs: ANSWER_MS }).catch(toPtpError);
    if (!(answer instanceof PtpError)) return answer;
    if (!['unavailable', 'deadline_exceeded'].includes(answer.code) || lacksMethod(answer)) {
      throw startError(`${address} is not an engine that this version can use: ${answer.message}`, answer);
    }
    if (performance.now() > end) {
      const action = 'start `ptp-engine` there, or set PTP_ENGINE to another address';
      throw startError(`no engine has answered at ${address} within ${limitMs / 1000} s: ${action}`, answer);
    }
    if (attempt === 1) logger?.info({ address }, 'waiting for the engine');
    await sleep(backoff.next());
  }
}

function lacksMethod({ cause }: PtpError): boolean {
  return (cause as { readonly code?: unknown } | undefined)?.code === UNIMPLEMENTED;
}

/** Compares an engine with the manifest of its model. @throws PtpError `failed_precondition` naming both values */
function engineInfo(engine: GetEngineResponse, manifest: Manifest, address: string): EngineInfo {
  const {
    vocabularySize,
    uniformsPerPosition,
    contextLength,
    maxSlots,
    maxSequences,
    bytesPerToken,
    device,
    precision,
  } = engine;
  const { sizes, uniforms_per_position: uniforms, context_length: context } = manifest;
  const check = (valid: boolean, name: string, expected: string, actual: number) => {
    if (!valid) throw startError(`${name} of the engine at ${address} must be ${expected}, got ${actual}`);
  };
  const ours = (value: number) => `${value}, as in ${manifest.id}`;
  check(vocabularySize === sizes.vocab, 'the vocabulary size', ours(sizes.vocab), vocabularySize);
  check(uniformsPerPosition === uniforms, 'the number of uniforms per position', ours(uniforms), uniformsPerPosition);
  const shorten = `at least ${context} (or set PTP_CONTEXT_LENGTH to a smaller value in all services)`;
  check(contextLength >= context, 'the context length', shorten, contextLength);
  check(maxSlots > 0, 'the number of slots', 'at least 1', maxSlots);
  check(maxSequences > 0, 'the number of sequences', 'at least 1', maxSequences);
  return {
    vocabulary: sizes.vocab,
    contextLength: context,
    uniformsPerPosition,
    maxSlots,
    maxSequences,
    bytesPerToken,
    engine: 'torch',
    ...(device && { device }),
    ...(precision && { quantization: precision }),
  };
}
