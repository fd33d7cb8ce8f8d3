import type { Span } from '@opentelemetry/api';
import { attribute } from '@ptp/service-kit/spans';
import {
  committedBy,
  type DraftStream,
  type Expected,
  type Opened,
  type Proposal,
  type Streams,
  type Verdict,
  type VerifyStream,
} from '../decode/ports.ts';
import type { GenerationRequest, Health, ModelInfo } from '../decode/types.ts';
import type { Tokenizer } from '../text/tokenizer.ts';

const SETTING = 'OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT';

/** Whether spans may have text, as OpenTelemetry's instrumentations are told: `true`, `SPAN_ONLY` or `SPAN_AND_EVENT`. */
export function contentAsked(env: NodeJS.ProcessEnv): boolean {
  return ['true', 'span_only', 'span_and_event'].includes(env[SETTING]?.trim().toLowerCase() ?? '');
}

/**
 * Streams that write what the model read and said into the request's span: `gen_ai.input.messages` is the prompt as the model got it (of
 * a chat with the template's marks), `gen_ai.output.messages` what it committed up to the end of text. A stop string cuts what the client
 * gets and not this. OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT bounds both.
 */
export class ContentStreams implements Streams {
  readonly #inner: Streams;
  readonly #tokenizer: Pick<Tokenizer, 'decode'>;

  constructor(inner: Streams, tokenizer: Pick<Tokenizer, 'decode'>) {
    this.#inner = inner;
    this.#tokenizer = tokenizer;
  }

  get model(): ModelInfo {
    return this.#inner.model;
  }

  health(): Health {
    return this.#inner.health();
  }

  verify(request: GenerationRequest, signal: AbortSignal, span: Span): VerifyStream {
    const stream = this.#inner.verify(request, signal, span);
    if (!span.isRecording()) return stream;
    span.setAttribute(attribute.inputMessages, message('user', this.#tokenizer.decode(request.prompt)));
    const { endOfText } = this.model;
    return new ContentVerifyStream(stream, (committed) => {
      const end = request.ignoreEndOfText ? -1 : committed.indexOf(endOfText);
      const said = committed.slice(0, end < 0 ? request.maxTokens : Math.min(end, request.maxTokens));
      const finish = { finish_reason: end < 0 ? 'length' : 'stop' };
      span.setAttribute(attribute.outputMessages, message('assistant', this.#tokenizer.decode(said), finish));
    });
  }

  draft(request: GenerationRequest, signal: AbortSignal, span: Span): DraftStream {
    return this.#inner.draft(request, signal, span);
  }
}

function message(role: 'user' | 'assistant', content: string, more: object = {}): string {
  return JSON.stringify([{ role, parts: [{ type: 'text', content }], ...more }]);
}

class ContentVerifyStream implements VerifyStream {
  readonly #inner: VerifyStream;
  readonly #committed: number[] = [];
  readonly #ended: (committed: readonly number[]) => void;

  constructor(inner: VerifyStream, ended: (committed: readonly number[]) => void) {
    this.#inner = inner;
    this.#ended = ended;
  }

  opened(): Promise<Opened> {
    return this.#inner.opened();
  }

  async step(proposal: Proposal): Promise<Verdict> {
    const verdict = await this.#inner.step(proposal);
    this.#committed.push(...committedBy(proposal.block, verdict));
    return verdict;
  }

  async stepAfter(expected: Expected, proposal: Proposal): Promise<Verdict | undefined> {
    const verdict = await this.#inner.stepAfter(expected, proposal);
    if (verdict) this.#committed.push(...committedBy(proposal.block, verdict));
    return verdict;
  }

  close(): void {
    this.#ended(this.#committed);
    this.#inner.close();
  }
}
