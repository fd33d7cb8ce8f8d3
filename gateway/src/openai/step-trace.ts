import { stepFigures } from '../decode/step-figures.ts';
import type { GenerationStep } from '../decode/types.ts';
import type { Tokenizer } from '../text/tokenizer.ts';

/** What one step did, in the chunks of requests with `ptp.trace`; times in microseconds. */
export type StepTrace = Readonly<Record<string, unknown>>;

interface TracedToken {
  readonly id: number;
  /** A character that spans several tokens is reported with the token that completes it. */
  readonly text: string;
}

/** Traces the steps of one answer. */
export class StepTracer {
  readonly #tokenizer: Tokenizer;
  /** Bytes of an incomplete character. */
  #held: Uint8Array = new Uint8Array();

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** @param count tokens of the step that belong to the answer */
  of({ stats, tokens, proposed }: GenerationStep, count: number): StepTrace {
    const accepted = this.#spell(tokens.slice(0, Math.min(count, stats.accepted)), this.#held);
    const rejected = this.#spell(proposed.slice(stats.accepted), accepted.held);
    const own = this.#spell(tokens.slice(stats.accepted, count), accepted.held);
    this.#held = own.held;
    return {
      ...stepFigures(stats),
      step_us: stats.stepMicros,
      verify_us: stats.verifyMicros,
      draft_us: stats.draftMicros,
      redraft_us: stats.redraftMicros,
      verify_run_us: stats.verifyRunMicros,
      draft_run_us: stats.draftRunMicros,
      tokens: [
        ...accepted.traced.map((token) => ({ ...token, source: stats.source })),
        ...own.traced.map((token) => ({ ...token, source: 'target' })),
      ],
      rejected: rejected.traced,
    };
  }

  /** Tokens with their text, and the bytes of a character left incomplete. @param before bytes left by earlier tokens */
  #spell(ids: readonly number[], before: Uint8Array): { traced: TracedToken[]; held: Uint8Array } {
    let held = before;
    const traced = ids.map((id) => {
      const bytes = Buffer.concat([held, this.#tokenizer.bytes(id)]);
      const whole = bytes.length - incompleteBytes(bytes);
      held = bytes.subarray(whole);
      return { id, text: bytes.toString('utf8', 0, whole) };
    });
    return { traced, held };
  }
}

/** Bytes of an incomplete character at the end of UTF-8 text, 0 .. 3. */
function incompleteBytes(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] as number;
    if (byte < 0x80) return 0;
    if (byte >= 0xc0) return back < (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) ? back : 0;
  }
  return 0;
}
