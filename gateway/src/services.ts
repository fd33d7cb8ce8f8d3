import type { Span } from '@opentelemetry/api';
import { PtpError, toPtpError } from '@ptp/core/errors.ts';
import type { ModelFacts } from '@ptp/core/gen/ptp/v1/common_pb.ts';
import { DrafterService } from '@ptp/core/gen/ptp/v1/drafter_pb.ts';
import { VerifierService } from '@ptp/core/gen/ptp/v1/verifier_pb.ts';
import type { Logger } from '@ptp/core/log.ts';
import { connect, type ServiceClient } from '@ptp/core/rpc/client.ts';
import { GrpcDraftStream } from './draft-stream.ts';
import type { GenerationRequest, PairFacts } from './generation.ts';
import { Peer } from './peer.ts';
import type { DraftStream, Streams, VerifyStream } from './streams.ts';
import { GrpcVerifyStream } from './verify-stream.ts';

/** Where the services are, and how long a drafter may keep a stream waiting. */
export interface ServicesOptions {
  readonly facts: PairFacts & { readonly tokenizerSha256: string };
  readonly verifierAddress: string;
  /** Undefined for a target without a drafter. */
  readonly drafterAddress: string | undefined;
  /** A stream waits no longer for a draft, milliseconds. */
  readonly draftTimeoutMs: number;
  /** A verifier that takes longer to answer is taken for lost, milliseconds. */
  readonly verifyTimeoutMs: number;
  readonly logger: Logger;
}

/** Both services over gRPC. */
export class Services implements Streams {
  readonly facts: PairFacts;
  readonly #options: ServicesOptions;
  readonly #verifier: ServiceClient<typeof VerifierService>;
  readonly #drafter: ServiceClient<typeof DrafterService> | undefined;
  readonly #verifierPeer: Peer;
  readonly #drafterPeer: Peer | undefined;

  constructor(options: ServicesOptions) {
    const { facts, verifierAddress, drafterAddress, logger } = options;
    this.facts = facts;
    this.#options = options;
    const matches = (model: ModelFacts | undefined) => assertSamePair(model, options.facts);
    this.#verifier = connect(VerifierService, verifierAddress);
    this.#verifierPeer = new Peer(verifierAddress, VerifierService, logger, async (signal) => {
      matches((await this.#verifier.getTarget({}, { signal, deadlineMs: 2000 })).model);
    });
    if (drafterAddress === undefined) return;
    const drafter = connect(DrafterService, drafterAddress);
    this.#drafter = drafter;
    this.#drafterPeer = new Peer(drafterAddress, DrafterService, logger, async (signal) => {
      matches((await drafter.getDrafter({}, { signal, deadlineMs: 2000 })).model);
    });
  }

  health(): { verifier: boolean; drafter: boolean } {
    return { verifier: this.#verifierPeer.usable, drafter: this.#drafterPeer?.usable ?? false };
  }

  /** Resolves when all are usable. */
  async ready(timeoutMs: number): Promise<void> {
    await Promise.all([this.#verifierPeer.ready(timeoutMs), this.#drafterPeer?.ready(timeoutMs)]);
  }

  verify(request: GenerationRequest, signal: AbortSignal, span: Span): VerifyStream {
    if (!this.#verifierPeer.usable) throw new PtpError('unavailable', 'the verifier is not reachable');
    return new GrpcVerifyStream(this.#verifier.verify({ signal }), request, span, this.#options.verifyTimeoutMs);
  }

  draft(request: GenerationRequest, signal: AbortSignal, span: Span): DraftStream {
    const open = () => (this.#drafterPeer?.usable ? this.#drafter?.draft({ signal }) : undefined);
    const { draftTimeoutMs: timeoutMs, logger } = this.#options;
    const onFailure = (error: unknown) => {
      if (!signal.aborted) logger.warn({ err: toPtpError(error) }, 'the drafter failed; decoding goes on');
    };
    return new GrpcDraftStream({ open, request, span, timeoutMs, vocabulary: this.facts.vocabulary, onFailure });
  }

  /** Closes both connections when the streams on them have ended. */
  close(): void {
    for (const closable of [this.#verifierPeer, this.#drafterPeer, this.#verifier, this.#drafter]) closable?.close();
  }
}

/** @throws PtpError `failed_precondition` naming the fact that differs: tokens of one pair mean nothing to another */
function assertSamePair(model: ModelFacts | undefined, facts: ServicesOptions['facts']): void {
  const pairs = [
    ['model_id', model?.modelId, facts.modelId],
    ['tokenizer_sha256', model?.tokenizerSha256, facts.tokenizerSha256],
    ['vocabulary_size', model?.vocabularySize, facts.vocabulary],
    ['context_length', model?.contextLength, facts.contextLength],
  ];
  for (const [name, theirs, ours] of pairs) {
    if (theirs === ours) continue;
    throw new PtpError('failed_precondition', `serves another pair: ${name} is ${theirs}, the gateway's is ${ours}`);
  }
}
