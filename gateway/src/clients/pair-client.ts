import type { Tls } from '@ptp/protocol/credentials';
import { PtpError, toPtpError } from '@ptp/protocol/errors';
import type { ModelFacts } from '@ptp/protocol/gen/ptp/v1/common_pb';
import { DrafterService } from '@ptp/protocol/gen/ptp/v1/drafter_pb';
import { VerifierService } from '@ptp/protocol/gen/ptp/v1/verifier_pb';
import type { Manifest } from '@ptp/protocol/manifest';
import type { Logger } from '@ptp/service-kit/log';
import type { DraftStream, StreamContext, Streams, VerifyStream } from '../decode/ports.ts';
import type { GenerationRequest, Health, ModelInfo } from '../decode/types.ts';
import { DraftDeadline } from './draft-deadline.ts';
import { GrpcDraftStream } from './draft-stream.ts';
import { FailoverVerifyStream } from './failover-verify-stream.ts';
import type { Resolve } from './name-watcher.ts';
import { ReplicaPool } from './replica-pool.ts';
import { GrpcVerifyStream } from './verify-stream.ts';

/** Addresses and timeouts of the services. */
export interface PairClientOptions {
  readonly model: ModelInfo & { readonly tokenizerSha256: string };
  /** Addresses of the verifiers, at least one. */
  readonly verifiers: readonly string[];
  /** Addresses of the drafters. Empty for a target without a drafter. */
  readonly drafters: readonly string[];
  /** Timeout of a draft in milliseconds, or `auto` to derive it from the duration of verify calls. */
  readonly draftTimeoutMs: number | 'auto';
  /** Maximum number of drafted tokens in a step. */
  readonly draftLength: number;
  /** Time in milliseconds after which a verifier that does not answer counts as lost. */
  readonly verifyTimeoutMs: number;
  /** Maximum time in milliseconds that a stream waits for another verifier after a loss. */
  readonly recoveryMs: number;
  readonly logger: Logger;
  readonly tls?: Tls | undefined;
  /** Resolves names. Default: the system's resolver. */
  readonly resolve?: Resolve | undefined;
}

/** Timeout in milliseconds of the check that a service serves the gateway's model. */
const CHECK_MS = 2000;

/**
 * Maximum size of a message from a drafter in bytes. A draft of 64 tokens takes less than 3,000 bytes. A longer message
 * fails the call before the message is parsed.
 */
const DRAFT_BYTES = 64 * 1024;

/** Message that cancels a stream. A client that hangs up must not reset a stream on a shared connection. */
const CANCEL = { kind: { case: 'cancel', value: {} } } as const;

/** Client of the two services over gRPC. */
export class PairClient implements Streams {
  readonly model: ModelInfo;
  readonly #options: PairClientOptions;
  readonly #verifiers: ReplicaPool<typeof VerifierService>;
  readonly #drafters: ReplicaPool<typeof DrafterService>;
  readonly #deadline: DraftDeadline;
  /** Description of the engine of the verifier that connected last. */
  #target: Omit<Health, 'verifier' | 'drafter' | 'hasDrafter'> = {};

  constructor(options: PairClientOptions) {
    const { model, verifiers, drafters, logger, tls, resolve } = options;
    this.model = model;
    this.#options = options;
    this.#deadline = new DraftDeadline({ ...options, timeoutMs: options.draftTimeoutMs });
    this.#verifiers = new ReplicaPool(verifiers, {
      service: VerifierService,
      logger,
      tls,
      resolve,
      check: async (client, signal) => {
        const target = await client.getTarget({}, { signal, deadlineMs: CHECK_MS });
        assertSamePair(target.model, model);
        const { batchInvariant, engine, candidateLimit, quantization, device, rejectsRepetitionPenalty } = target;
        this.#target = {
          batchInvariant,
          rejectsRepetitionPenalty,
          ...(engine && { engine }),
          ...(candidateLimit && { candidateLimit }),
          ...(quantization && { quantization }),
          ...(device && { device }),
        };
      },
    });
    this.#drafters = new ReplicaPool(drafters, {
      service: DrafterService,
      logger,
      tls,
      resolve,
      maxReceiveBytes: DRAFT_BYTES,
      check: async (client, signal) => {
        const drafter = await client.getDrafter({}, { signal, deadlineMs: CHECK_MS });
        assertSamePair(drafter.model, model);
      },
    });
  }

  health(): Health {
    const [verifier, drafter] = [this.#verifiers.usable, this.#drafters.usable];
    return { verifier, drafter, hasDrafter: this.#options.drafters.length > 0, ...this.#target };
  }

  /** Resolves once a verifier and, if there are any, a drafter are usable. */
  async ready(timeoutMs: number): Promise<void> {
    const drafters = this.#options.drafters.length > 0 ? [this.#drafters] : [];
    await Promise.all([this.#verifiers, ...drafters].map((replicas) => replicas.ready(timeoutMs)));
  }

  verify(request: GenerationRequest, { signal, traceparent, onVerifierLoss }: StreamContext): VerifyStream {
    const { recoveryMs, logger, verifyTimeoutMs: timeoutMs } = this.#options;
    const { vocabulary } = this.model;
    return new FailoverVerifyStream({
      prompt: request.prompt,
      open: (tokens) => {
        const lease = this.#verifiers.lease();
        if (!lease) return undefined;
        const call = lease.client.verify({ signal, farewell: CANCEL });
        const onVerified = (micros: number) => this.#deadline.verified(micros);
        const stream = new GrpcVerifyStream({ call, request, tokens, traceparent, timeoutMs, vocabulary, onVerified });
        const end = (failed: boolean) => {
          stream.close();
          lease.leave(failed);
        };
        return { stream, end };
      },
      ready: (timeoutMs, signal) => this.#verifiers.ready(timeoutMs, signal),
      recoveryMs,
      signal,
      onLoss: (err) => {
        onVerifierLoss();
        logger.warn({ err }, 'a stream has lost its verifier and continues at another verifier');
      },
    });
  }

  draft(request: GenerationRequest, { signal, traceparent }: StreamContext): DraftStream | undefined {
    const { drafters, logger } = this.#options;
    if (drafters.length === 0) return undefined;
    const open = () => {
      const lease = this.#drafters.lease();
      return lease && { call: lease.client.draft({ signal, farewell: CANCEL }), leave: lease.leave };
    };
    const onFailure = (error: unknown) => {
      if (!signal.aborted) logger.warn({ err: toPtpError(error) }, 'the drafter failed; decoding continues without it');
    };
    const { vocabulary } = this.model;
    return new GrpcDraftStream({ open, request, traceparent, deadline: this.#deadline, vocabulary, onFailure });
  }

  /** Closes all connections once the streams on them have ended. */
  close(): void {
    this.#verifiers.close();
    this.#drafters.close();
  }
}

/**
 * Checks that a service has the same model as the gateway. Another model would interpret the token ids differently.
 *
 * @throws PtpError `failed_precondition` naming the difference
 */
function assertSamePair(theirs: ModelFacts | undefined, ours: PairClientOptions['model']): void {
  const pairs = [
    ['model_id', theirs?.modelId, ours.modelId],
    ['tokenizer_sha256', theirs?.tokenizerSha256, ours.tokenizerSha256],
    ['vocabulary_size', theirs?.vocabularySize, ours.vocabulary],
    ['context_length', theirs?.contextLength, ours.contextLength],
  ];
  for (const [name, served, expected] of pairs) {
    if (served === expected) continue;
    throw new PtpError(
      'failed_precondition',
      `the service must have the gateway's model: its ${name} must be ${expected}, got ${served}`,
    );
  }
}

/** Returns the description of a model that both services must report. */
export function modelInfoOf(manifest: Manifest): PairClientOptions['model'] {
  return {
    modelId: manifest.id,
    vocabulary: manifest.sizes.vocab,
    contextLength: manifest.context_length,
    endOfText: manifest.end_of_text,
    stopTokens: manifest.stop_tokens,
    beginOfText: manifest.begin_of_text === undefined ? manifest.end_of_text : manifest.begin_of_text,
    tokenizerSha256: manifest.tokenizer.sha256,
    engine: manifest.engine,
    quantization: manifest.quantisation,
    // Model folders always have a template. If the model was imported, it is the model's own.
    hasChatTemplate: manifest.has_chat_template ?? manifest.target?.source !== undefined,
    ...(manifest.candidate_limit !== undefined && { candidateLimit: manifest.candidate_limit }),
  };
}
