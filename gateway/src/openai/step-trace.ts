import type { GenerationStep } from '../decode/types.ts';
import { stepFigures } from '../observe/step-figures.ts';
import type { Tokenizer } from '../text/tokenizer.ts';

/** What a streamed chunk tells of its step when a request asks for `ptp.trace`; times in microseconds. */
export type StepTrace = Readonly<Record<string, unknown>>;

interface TracedToken {
  readonly id: number;
  /** A character that several tokens spell is told with the one that completes it. */
  readonly text: string;
}

/** The steps of one answer as they arrive. */
export class StepTracer {
  readonly #tokenizer: Tokenizer;
  /** Bytes of a character that is not complete yet. */
  #held: Uint8Array = new Uint8Array();

  constructor(tokenizer: Tokenizer) {
    this.#tokenizer = tokenizer;
  }

  /** @param count how many of the step's tokens are part of the answer */
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
        ...accepted.told.map((token) => ({ ...token, source: stats.source })),
        ...own.told.map((token) => ({ ...token, source: 'target' })),
      ],
      rejected: rejected.told,
    };
  }

  /** Tokens with their text after `before`, and the bytes that are left. */
  #spell(ids: readonly number[], before: Uint8Array): { told: TracedToken[]; held: Uint8Array } {
    let held = before;
    const told = ids.map((id) => {
      const bytes = Buffer.concat([held, this.#tokenizer.bytes(id)]);
      const whole = bytes.length - unfinished(bytes);
      held = bytes.subarray(whole);
      return { id, text: bytes.toString('utf8', 0, whole) };
    });
    return { told, held };
  }
}

/** How many bytes at the end of UTF-8 text begin a character without completing it, 0 .. 3. */
function unfinished(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] as number;
    if (byte < 0x80) return 0;
    if (byte >= 0xc0) return back < (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) ? back : 0;
  }
  return 0;
}
