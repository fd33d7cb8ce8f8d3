import { create, toBinary } from '@bufbuild/protobuf';
import {
  GenerateRequestSchema,
  GenerationService,
  GetModelRequestSchema,
  TokenizeRequestSchema,
} from '@ptp/protocol/gen/ptp/v1/generation_pb';
import fc from 'fast-check';
import { deepJson, jsonSchema, regex } from './forms.ts';
import { rarely } from './rarely.ts';

/** One call of the gateway's GenerationService, whose bytes may have been corrupted. */
export interface Call {
  readonly path: string;
  readonly message: { readonly seed?: bigint; readonly maxTokens?: number; readonly stop?: readonly string[] };
  /** True if the bytes are not corrupted. */
  readonly whole: boolean;
  readonly bytes: Buffer;
  readonly metadata: Readonly<Record<string, string>>;
  /** Number of answers after which the caller cancels. */
  readonly leavesAfter: number | undefined;
  /** Deadline in milliseconds. Default: longer than any answer takes. */
  readonly deadline: number | undefined;
}

const MOST = 2 ** 32 - 1;
/** Placeholder for invalid UTF-8. */
const MARK = '\u0001\u0002\u0003';
/** UTF-8 encoding of a lone surrogate, which is invalid. */
const NO_UTF8 = Buffer.of(0xed, 0xa0, 0x80);

/** Returns true if the bytes are certain to parse as a message. */
export const isReadable = ({ whole, bytes }: Call): boolean => whole && !bytes.includes(NO_UTF8);

/** Generates token ids. Most are in the vocabulary (257 tokens), so that they get past validation. */
const token = fc.oneof({ weight: 40, arbitrary: fc.nat(256) }, fc.constantFrom(257, 2 ** 31, MOST));
const tokens = (most: number) => fc.array(token, { maxLength: most });
const float = fc.oneof(
  fc.float(),
  fc.constantFrom(0, 1, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, -1, 1e-45, 3.4e38),
);
const near = (least: number, most: number) =>
  fc.oneof({ weight: 12, arbitrary: fc.double({ min: least, max: most, noNaN: true }).map(Math.fround) }, float);
const text = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom('def f(x):', 'import ', 'x', 'é😀') },
  { weight: 3, arbitrary: fc.string({ unit: 'binary' }) },
  { weight: 1, arbitrary: fc.constantFrom('', `a${MARK}`, '\0', '\ufeff', 'ab '.repeat(50_000), '\r\n'.repeat(300)) },
);
const optional = <T>(arbitrary: fc.Arbitrary<T>, freq = 2) => fc.option(arbitrary, { nil: undefined, freq });

const prompt = fc.oneof(
  { weight: 6, arbitrary: text.map((value) => ({ case: 'text', value })) },
  { weight: 6, arbitrary: tokens(40).map((ids) => ({ case: 'tokens', value: { ids } })) },
  fc.constantFrom(255, 256, 100_000).map((n) => ({ case: 'tokens', value: { ids: new Array(n).fill(5) } })),
  fc.constant({ case: undefined }),
);
const sampling = fc.record({
  temperature: near(0, 2),
  topK: fc.oneof({ weight: 8, arbitrary: fc.constantFrom(0, 1, 5, 257) }, fc.constantFrom(258, MOST)),
  topP: near(0, 1),
  minP: near(0, 1),
});
const adjustments = fc.record({
  logitBias: rarely(fc.dictionary(fc.constantFrom('0', '5', '256', '257', String(MOST)), near(-100, 100)), {}),
  presencePenalty: near(-2, 2),
  frequencyPenalty: near(-2, 2),
  repetitionPenalty: near(0, 10),
  heldBack: rarely(tokens(300), []),
  heldBackUntil: rarely(fc.constantFrom(1, 3, 5000, MOST), 0),
});
const draft = fc.record({
  off: fc.boolean(),
  length: fc.constantFrom(0, 0, 1, 5, 64, 65, MOST),
  mode: fc.oneof(
    { weight: 12, arbitrary: fc.constantFrom('', 'auto', 'overlap', 'sequential', 'plain') },
    fc.constantFrom('Auto', MARK, '__proto__', 'x'.repeat(100_000)),
  ),
  promptLookup: optional(fc.boolean()),
});
const form = fc.oneof(
  { weight: 30, arbitrary: fc.constant({ case: undefined }) },
  { weight: 8, arbitrary: jsonSchema.map((schema) => ({ case: 'jsonSchema', value: JSON.stringify(schema) ?? '' })) },
  { weight: 1, arbitrary: fc.oneof(deepJson, text).map((value) => ({ case: 'jsonSchema', value })) },
  { weight: 2, arbitrary: fc.boolean().map((value) => ({ case: 'jsonObject', value })) },
  { weight: 8, arbitrary: regex.map((value) => ({ case: 'regex', value })) },
);
const model = rarely(fc.constantFrom('default', 'tiny', 'other', '../tiny', MARK, 'm'.repeat(10_000)), '');
const stop = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom('\n', 'e', ' x', 'é') },
  fc.constantFrom('', MARK, 'ab'.repeat(50_000)),
);
const seed = fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.constantFrom(0n, 2n ** 64n - 1n));

const generate = fc.record({
  model,
  prompt,
  sampling: optional(sampling),
  seed: optional(seed),
  maxTokens: fc.oneof({ weight: 200, arbitrary: fc.integer({ min: 1, max: 12 }) }, fc.constantFrom(0, 250, 256, MOST)),
  stop: rarely(fc.array(stop, { maxLength: 5 }), []),
  draft: optional(draft, 3),
  adjustments: optional(adjustments, 3),
  topLogProbabilities: rarely(fc.constantFrom(1, 20, 21, MOST), 0),
  stopTokens: rarely(tokens(70), []),
  ignoreEndOfText: rarely(fc.constant(true), false),
  form,
});

const tokenize = fc.record({ model, text, withoutBeginning: fc.boolean() });

const place = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
type Spoil = (bytes: Buffer) => Buffer;
const keep: Spoil = (bytes) => bytes;
/** Corrupts bytes: changes some, removes the end, appends some, or replaces all. */
const spoil: fc.Arbitrary<Spoil> = fc.oneof(
  { weight: 40, arbitrary: fc.constant(keep) },
  fc.array(fc.tuple(place, fc.nat(255)), { minLength: 1, maxLength: 3 }).map((changes): Spoil => {
    return (bytes) => {
      const changed = Buffer.from(bytes);
      for (const [at, byte] of changes) if (changed.length > 0) changed[Math.floor(at * changed.length)] = byte;
      return changed;
    };
  }),
  place.map(
    (at): Spoil =>
      (bytes) =>
        bytes.subarray(0, Math.floor(at * bytes.length)),
  ),
  fc.uint8Array({ maxLength: 20 }).map(
    (more): Spoil =>
      (bytes) =>
        Buffer.concat([bytes, more]),
  ),
  fc.uint8Array({ maxLength: 60 }).map(
    (others): Spoil =>
      () =>
        Buffer.from(others),
  ),
);

const methods = fc.oneof(
  { weight: 60, arbitrary: generate.map((message) => called('Generate', GenerateRequestSchema, message)) },
  { weight: 4, arbitrary: tokenize.map((message) => called('Tokenize', TokenizeRequestSchema, message)) },
  fc.record({ model }).map((message) => called('GetModel', GetModelRequestSchema, message)),
  generate.map((message) => ({ ...called('Generate', GenerateRequestSchema, message), path: '/ptp.v1.Nothing/At' })),
);

function called(method: string, schema: Parameters<typeof create>[0], message: object) {
  const bytes = Buffer.from(toBinary(schema, create(schema, message as never)));
  for (let at = bytes.indexOf(MARK); at >= 0; at = bytes.indexOf(MARK)) bytes.set(NO_UTF8, at);
  return { path: `/${GenerationService.typeName}/${method}`, message, bytes };
}

const header = fc.constantFrom(
  ...[
    '',
    'Bearer x',
    'Basic eA==',
    '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    '00-0-0-01',
    'x'.repeat(2000),
  ],
);
export const calls: fc.Arbitrary<Call> = fc
  .record({
    method: methods,
    spoil,
    metadata: rarely(fc.dictionary(fc.constantFrom('authorization', 'traceparent', 'x-request-id'), header), {}),
    leavesAfter: rarely(fc.nat(3), undefined as number | undefined),
    deadline: rarely(fc.nat(20), undefined as number | undefined),
  })
  .map(({ method, spoil, ...caller }) => ({ ...method, ...caller, whole: spoil === keep, bytes: spoil(method.bytes) }));
