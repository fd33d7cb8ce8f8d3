import manifest from '../../package.json' with { type: 'json' };
import { openAiError } from '../http/errors.ts';
import { newId } from '../http/ids.ts';
import { type ChoiceDelta, warningOf } from './choices.ts';
import type { TokenLogprob } from './logprobs.ts';
import type { StepTrace } from './step-trace.ts';
import type { ResponseWriter, Run, ServerEvent } from './stream.ts';

/** Differences between the responses of completions and chat. */
export interface Format {
  readonly idPrefix: string;
  readonly object: string;
  readonly chunkObject: string;
  readonly newChoice: () => ChoiceFormat;
}

/** Builds one entry of `choices`, for the chunks of a stream and for a whole response. */
export interface ChoiceFormat {
  /** Chunk to send before any text. */
  readonly first?: object;
  /** Adds a piece of text and returns its chunk. */
  piece(text: string, tokens?: readonly TokenLogprob[]): object;
  /** Ends the choice and returns its last chunk, which may contain the rest of the text. */
  last(finish: string): object;
  /** Returns the entry for a response that is not streamed. */
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
  /** Number of warnings that a stream has sent. */
  #warned = 0;

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
    // A stream has sent them already, and keeping them could take megabytes.
    if (!this.#run.stream) {
      if (tokens) {
        choice.tokens ??= [];
        choice.tokens.push(...tokens);
      }
      if (trace) choice.traces.push(trace);
    }
    if (text !== '' || tokens?.length || trace) {
      const piece = choice.format.piece(text, tokens);
      if (tokens?.length || trace || !isEmpty(piece)) yield this.#chunk([{ index, ...piece }], trace && { ptp: trace });
    }
    if (finish) yield this.#chunk([{ index, ...choice.format.last(finish) }]);
  }

  *end(): Iterable<ServerEvent> {
    const { includeUsage, figures } = this.#run;
    if (includeUsage) yield this.#chunk([], { usage: figures.usage });
    yield { data: '[DONE]' };
  }

  fail(error: unknown): ServerEvent {
    return { data: openAiError(error).body };
  }

  whole(): object {
    const { usage, warnings } = this.#run.figures;
    return {
      ...this.#head,
      object: this.#format.object,
      choices: this.#choices.map(({ format, tokens, traces }, index) => ({
        index,
        ...format.whole(tokens),
        ...(traces.length > 0 && { ptp: traces }),
      })),
      usage,
      ...warningOf(warnings),
    };
  }

  #chunk(choices: readonly object[], fields: object = {}): ServerEvent {
    const usage = this.#run.includeUsage && { usage: null };
    const head = { ...this.#head, object: this.#format.chunkObject };
    return { data: { ...head, choices, ...usage, ...this.#newWarning(), ...fields } };
  }

  /** Returns each warning once per stream: in the first chunk, or as soon as there is a reason. */
  #newWarning(): { warning?: string } {
    const fresh = [...this.#run.figures.warnings].slice(this.#warned);
    this.#warned += fresh.length;
    return warningOf(fresh);
  }
}

/** Returns true for the chunk of a chat that adds nothing, because its text is held back or belongs to a tag. */
function isEmpty(piece: object): boolean {
  return 'delta' in piece && Object.keys(piece.delta as object).length === 0;
}
