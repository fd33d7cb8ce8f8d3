import manifest from '../../package.json' with { type: 'json' };
import { openAiError } from '../http/errors.ts';
import { newId } from '../http/ids.ts';
import type { ChoiceDelta } from './choices.ts';
import type { TokenLogprob } from './logprobs.ts';
import type { StepTrace } from './step-trace.ts';
import type { ResponseWriter, Run, ServerEvent } from './stream.ts';

/** Values that completions and chat write differently. */
export interface Format {
  readonly idPrefix: string;
  readonly object: string;
  readonly chunkObject: string;
  /** A choice of a new response. */
  readonly newChoice: () => ChoiceFormat;
}

/** Fields of one entry of `choices`, in the chunks of a stream and in a whole response. */
export interface ChoiceFormat {
  /** Chunk that precedes the text, if any. */
  readonly first?: object;
  /** Chunk with a piece of text. */
  piece(text: string, tokens?: readonly TokenLogprob[]): object;
  /** Chunk that ends the choice; it may hold the rest of the text. */
  last(finish: string): object;
  whole(tokens?: readonly TokenLogprob[]): object;
}

interface Choice {
  readonly format: ChoiceFormat;
  readonly traces: StepTrace[];
  tokens?: TokenLogprob[];
}

/** Writes responses of completions and chat. */
export class ChoicesWriter implements ResponseWriter {
  readonly #run: Run;
  readonly #choices: readonly Choice[];
  readonly #head: object;
  readonly #format: Format;

  constructor(format: Format, run: Run) {
    this.#format = format;
    this.#run = run;
    this.#choices = Array.from({ length: run.choices }, () => ({ format: format.newChoice(), traces: [] }));
    this.#head = {
      id: newId(format.idPrefix),
      created: Math.floor(Date.now() / 1000),
      model: run.modelId,
      system_fingerprint: `ptp-${manifest.version}-${run.modelId}`,
    };
  }

  *start(): Iterable<ServerEvent> {
    for (const [index, { format }] of this.#choices.entries()) {
      if (format.first) yield this.#chunk([{ index, ...format.first }]);
    }
  }

  *add({ index, text, tokens, trace, finish }: ChoiceDelta): Iterable<ServerEvent> {
    const choice = this.#choices[index] as Choice;
    // Not needed for a stream, where they could take megabytes.
    if (!this.#run.stream) {
      if (tokens) {
        choice.tokens ??= [];
        choice.tokens.push(...tokens);
      }
      if (trace) choice.traces.push(trace);
    }
    if (text !== '' || tokens?.length || trace) {
      yield this.#chunk([{ index, ...choice.format.piece(text, tokens) }], trace && { ptp: trace });
    }
    if (finish) yield this.#chunk([{ index, ...choice.format.last(finish) }]);
  }

  *end(): Iterable<ServerEvent> {
    const { includeUsage, usage } = this.#run;
    if (includeUsage) yield this.#chunk([], { usage });
    yield { data: '[DONE]' };
  }

  fail(error: unknown): ServerEvent {
    return { data: openAiError(error).body };
  }

  whole(): object {
    return {
      ...this.#head,
      object: this.#format.object,
      choices: this.#choices.map(({ format, tokens, traces }, index) => ({
        index,
        ...format.whole(tokens),
        ...(traces.length > 0 && { ptp: traces }),
      })),
      usage: this.#run.usage,
    };
  }

  #chunk(choices: readonly object[], fields: object = {}): ServerEvent {
    const usage = this.#run.includeUsage && { usage: null };
    return { data: { ...this.#head, object: this.#format.chunkObject, choices, ...usage, ...fields } };
  }
}
