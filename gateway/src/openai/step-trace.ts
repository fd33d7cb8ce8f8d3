import { StringDecoder } from 'node:string_decoder';
import { stepFigures } from '../decode/step-figures.ts';
import type { GenerationStep } from '../decode/types.ts';
import { LeadingBytes } from '../text/token-healing.ts';
import type { Tokenizer } from '../text/tokenizer.ts';

/** Description of one step in the chunks of a request with `ptp.trace`. Times are in microseconds. */
export type StepTrace = Readonly<Record<string, unknown>>;

export class StepTracer {
  readonly #tokenizer: Tokenizer;
  /** Decodes the answer, and holds back the bytes of a character until it is complete. */
  readonly #decoder = new StringDecoder();
  /** Last 3 bytes of the answer, which may be part of an incomplete character. */
  #tail: Uint8Array = new Uint8Array();

  readonly #healed: LeadingBytes;

  /** @param healedBytes number of bytes of the first tokens that belong to the prompt, not to the answer */
  constructor(tokenizer: Tokenizer, healedBytes = 0) {
    this.#tokenizer = tokenizer;
    this.#healed = new LeadingBytes(healedBytes);
  }

  /** @param count number of tokens of the step that belong to the answer */
  of({ stats, tokens, proposed }: GenerationStep, count: number): StepTrace {
    const answer = tokens.slice(0, count);
    const accepted = this.#spellAnswer(answer.slice(0, stats.accepted));
    // Rejected tokens continue the accepted ones, but must not affect how the answer continues.
    const branch = new StringDecoder();
    branch.write(this.#tail);
    const rejected = this.#spell(proposed.slice(stats.accepted), branch, this.#healed.fork());
    const own = this.#spellAnswer(answer.slice(stats.accepted));
    return {
      ...stepFigures(stats),
      step_us: stats.stepMicros,
      verify_us: stats.verifyMicros,
      draft_us: stats.draftMicros,
      redraft_us: stats.redraftMicros,
      verify_run_us: stats.verifyRunMicros,
      draft_run_us: stats.draftRunMicros,
      tokens: [
        ...accepted.map((token) => ({ ...token, source: stats.source })),
        ...own.map((token) => ({ ...token, source: 'target' })),
      ],
      rejected,
    };
  }

  #spellAnswer(ids: readonly number[]) {
    const shown = this.#healed.fork();
    this.#tail = Buffer.concat([this.#tail, ...ids.map((id) => shown.drop(this.#tokenizer.bytes(id)))]).subarray(-3);
    return this.#spell(ids, this.#decoder, this.#healed);
  }

  /** Returns tokens with their text. A character that spans several tokens belongs to the token that completes it. */
  #spell(ids: readonly number[], decoder: StringDecoder, healed: LeadingBytes) {
    return ids.map((id) => ({ id, text: decoder.write(healed.drop(this.#tokenizer.bytes(id))) }));
  }
}
