import {
  createTraceState,
  type HrTime,
  type SpanContext,
  type SpanKind,
  type SpanStatusCode,
} from '@opentelemetry/api';
import { ProtobufTraceSerializer } from '@opentelemetry/otlp-transformer';
import { resourceFromAttributes } from '@opentelemetry/resources';
import type { ReadableSpan } from '@opentelemetry/sdk-trace';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { traceSerializer } from '../src/otlp.ts';

const hex = (digits: number) =>
  fc.uint8Array({ minLength: digits / 2, maxLength: digits / 2 }).map((bytes) => Buffer.from(bytes).toString('hex'));
const context: fc.Arbitrary<SpanContext> = fc
  .record({
    traceId: hex(32),
    spanId: hex(16),
    traceFlags: fc.constantFrom(0, 1),
    isRemote: fc.boolean(),
    state: fc.option(fc.constant('vendor=1,other=2')),
  })
  .map(({ state, ...rest }) => ({ ...rest, ...(state && { traceState: createTraceState(state) }) }));
const time: fc.Arbitrary<HrTime> = fc.tuple(fc.integer({ min: 0, max: 4e9 }), fc.integer({ min: 0, max: 999_999_999 }));
const text = fc.oneof(fc.string(), fc.string({ unit: 'binary', maxLength: 300 }));
const value = fc.letrec((tie) => ({
  any: fc.oneof(
    { maxDepth: 3 },
    text,
    fc.boolean(),
    fc.integer(),
    fc.maxSafeInteger(),
    fc.double(),
    fc.constantFrom(0, -0, -1, 127, 128, 2 ** 32, 2 ** 60, -(2 ** 63), 2 ** 63, null),
    fc.uint8Array(),
    fc.array(tie('any'), { maxLength: 4 }),
    fc.dictionary(text, tie('any'), { maxKeys: 4, noNullPrototype: true }),
  ),
})).any;
const attributes = fc.dictionary(text, value, { maxKeys: 12, noNullPrototype: true });
const count = fc.constantFrom(0, 1, 300);
const origins = ['a', 'b'].map((name) => ({
  resource: resourceFromAttributes({ 'service.name': name, 'process.pid': 7, 'process.command_args': ['node', name] }),
  instrumentationScope: { name, version: '1', schemaUrl: 'https://example.org' },
}));

const span: fc.Arbitrary<ReadableSpan> = fc
  .record({
    origin: fc.constantFrom(...origins),
    name: text,
    kind: fc.integer({ min: 0, max: 4 }) as fc.Arbitrary<SpanKind>,
    context,
    parentSpanContext: context,
    startTime: time,
    endTime: time,
    status: fc.record({ code: fc.constantFrom(0, 1, 2) as fc.Arbitrary<SpanStatusCode>, message: text }),
    attributes,
    links: fc.array(fc.record({ context, attributes, droppedAttributesCount: count }), { maxLength: 2 }),
    events: fc.array(fc.record({ name: text, time, attributes, droppedAttributesCount: count }), { maxLength: 2 }),
    dropped: count,
    isRoot: fc.boolean(),
  })
  .map(({ origin, context: own, parentSpanContext, dropped, isRoot, ...rest }) => ({
    ...rest,
    ...origin,
    ...(!isRoot && { parentSpanContext }),
    spanContext: () => own,
    duration: [0, 0],
    ended: true,
    droppedAttributesCount: dropped,
    droppedEventsCount: dropped,
    droppedLinksCount: dropped,
  }));

test('spans are serialized as the SDK does it, to the byte', () => {
  fc.assert(
    fc.property(fc.array(span, { maxLength: 20 }), (spans) => {
      const ours = traceSerializer.serializeRequest(spans) as Uint8Array;
      const theirs = ProtobufTraceSerializer.serializeRequest(spans) as Uint8Array;
      expect(Buffer.from(ours).equals(theirs)).toBe(true);
    }),
  );
});
