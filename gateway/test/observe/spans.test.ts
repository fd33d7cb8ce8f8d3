import { expect, test } from 'vitest';
import { memoryTracing, type SpanTree, treeOf } from '../../../service-kit/test/span-tree.ts';
import { TestPair } from '../../../test/test-pair.ts';
import { PairGenerator } from '../../src/decode/generate.ts';
import { capturesContent, spanObserver } from '../../src/observe/spans.ts';

/** Returns the shape of a trace: the names of its spans, with children sorted and without repetition. */
function shape({ span, children }: SpanTree): unknown {
  const shapes = children.map(shape).map((child) => JSON.stringify(child));
  return { [span.name]: [...new Set(shapes)].sort().map((child) => JSON.parse(child)) };
}

const millis = ([seconds, nanos]: [number, number]) => seconds * 1e3 + nanos / 1e6;

/** Checks that all spans of a tree lie within its root, up to rounding of times to microseconds. */
function expectInside({ span, children }: SpanTree): void {
  for (const child of children) {
    expect(millis(child.span.startTime)).toBeGreaterThan(millis(span.startTime) - 0.01);
    expect(millis(child.span.endTime)).toBeLessThan(millis(span.endTime) + 0.01);
    expectInside(child);
  }
}

/** Returns true if a step's draft and verify calls overlapped in time. */
function overlaps({ children }: SpanTree): boolean {
  const verify = children.find(({ span }) => span.name === 'ptp.verify')?.span;
  const drafts = children.filter(({ span }) => span.name === 'ptp.draft').map(({ span }) => span);
  return drafts.some(
    (draft) =>
      verify !== undefined &&
      millis(draft.startTime) < millis(verify.endTime) &&
      millis(verify.startTime) < millis(draft.endTime),
  );
}

test('a request is one trace of steps, their calls, and the runs of both services', async () => {
  const tracing = await memoryTracing();
  const pair = await TestPair.fake({ accuracy: 0.9, latencyMs: 5 });
  const generator = new PairGenerator(pair.services, { length: 5, budget: 16, mode: 'overlap' }, [spanObserver()]);
  try {
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    const request = {
      prompt: [1, 2, 3],
      sampling: { temperature: 0.75, topK: 0, topP: 1 },
      seed: 1n,
      maxTokens: 40,
      traceparent,
      requestId: 'req-1',
    };
    let steps = 0;
    let accepted = 0;
    for await (const { stats } of generator.generate(request, new AbortController().signal)) {
      steps++;
      accepted += stats.accepted;
    }
    const spans = await tracing.finished();
    expect(new Set(spans.map((span) => span.spanContext().traceId))).toEqual(new Set([traceparent.split('-')[1]]));

    const root = treeOf(spans, 'text_completion fake');
    expect(root.span.parentSpanContext?.spanId).toBe('b7ad6b7169203331');
    expect(root.span.attributes).toMatchObject({
      'gen_ai.operation.name': 'text_completion',
      'gen_ai.provider.name': 'ptp',
      'gen_ai.output.type': 'text',
      'gen_ai.request.model': 'fake',
      'gen_ai.response.model': 'fake',
      'gen_ai.request.temperature': 0.75,
      'gen_ai.request.top_p': 1,
      'gen_ai.request.top_k': 0,
      'gen_ai.request.seed': 1,
      'gen_ai.request.max_tokens': 40,
      'ptp.request.id': 'req-1',
      'gen_ai.usage.input_tokens': 3,
      'gen_ai.usage.output_tokens': 40,
      'gen_ai.response.finish_reasons': ['length'],
    });
    const stepTrees = root.children.filter(({ span }) => span.name === 'ptp.step');
    expect(stepTrees).toHaveLength(steps);
    expect(stepTrees.reduce((sum, { span }) => sum + Number(span.attributes['ptp.accepted']), 0)).toBe(accepted);
    expect(JSON.stringify(root.span.attributes)).not.toContain('messages');
    expectInside(root);
    expect(stepTrees.filter(overlaps).length).toBeGreaterThan(0);
    for (const { span } of stepTrees) {
      expect(span.attributes).toMatchObject({
        'ptp.mode': 'overlap',
        'ptp.mode.reason': 'setting',
        'ptp.draft.length': expect.any(Number),
        'ptp.draft.source': expect.any(String),
      });
    }
    const taken = stepTrees.map(({ span }) => span.attributes['ptp.branch.taken']).filter((m) => m !== undefined);
    expect(taken.length).toBeGreaterThan(0);
    for (const call of stepTrees.flatMap(({ children }) => children)) {
      // The gateway's span and the service's span have the same figures.
      const [run] = call.children;
      for (const name of ['ptp.queue_us', 'ptp.run_us', 'ptp.batch.size'])
        expect(call.span.attributes[name]).toBe(run?.span.attributes[name]);
    }
    const runs = [{ 'ptp.queue': [] }, { 'ptp.run': [] }];
    expect(shape(stepTrees[0] as SpanTree)).toEqual({
      'ptp.step': [{ 'ptp.draft': [{ 'ptp.draft.run': runs }] }, { 'ptp.verify': [{ 'ptp.verify.run': runs }] }],
    });
  } finally {
    await pair.stop();
    await tracing.stop();
  }
});

test('spans contain text only if that is enabled', async () => {
  expect(capturesContent({})).toBe(false);
  expect(capturesContent({ OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT: 'NO_CONTENT' })).toBe(false);
  expect(capturesContent({ OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT: 'SPAN_ONLY' })).toBe(true);
  const tracing = await memoryTracing();
  const pair = await TestPair.fake();
  try {
    // Each token stands for the letter with that number.
    const text = (ids: readonly number[]) => ids.map((id) => String.fromCharCode(0x100 + id)).join('');
    const observers = [spanObserver(text)];
    const generator = new PairGenerator(pair.services, { length: 5, budget: 16, mode: 'overlap' }, observers);
    const request = { prompt: [1, 2, 3], sampling: { temperature: 0.75, topK: 0, topP: 1 }, seed: 1n, maxTokens: 20 };
    const tokens: number[] = [];
    for await (const step of generator.generate(request, new AbortController().signal)) tokens.push(...step.tokens);
    const { attributes } = treeOf(await tracing.finished(), 'text_completion fake').span;
    expect(JSON.parse(String(attributes['gen_ai.input.messages']))).toEqual([
      { role: 'user', parts: [{ type: 'text', content: text(request.prompt) }] },
    ]);
    expect(JSON.parse(String(attributes['gen_ai.output.messages']))).toEqual([
      { role: 'assistant', parts: [{ type: 'text', content: text(tokens) }], finish_reason: expect.any(String) },
    ]);
  } finally {
    await pair.stop();
    await tracing.stop();
  }
});
