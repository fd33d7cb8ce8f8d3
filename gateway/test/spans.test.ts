import { expect, test } from 'vitest';
import { memoryTracing, type SpanTree, treeOf } from '../../core/test/span-tree.ts';
import { TestPair } from '../../test/test-pair.ts';

/** Names of a tree, children sorted and without repetition: the shape of a trace. */
function shape({ span, children }: SpanTree): unknown {
  const shapes = children.map(shape).map((child) => JSON.stringify(child));
  return { [span.name]: [...new Set(shapes)].sort().map((child) => JSON.parse(child)) };
}

test('a request is one trace: steps, the calls that they make, and what both services did', async () => {
  const tracing = await memoryTracing();
  const pair = await TestPair.fake({ accuracy: 0.9 });
  try {
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    const request = {
      prompt: [1, 2, 3],
      sampling: { temperature: 0.75, topK: 0, topP: 1 },
      seed: 1n,
      maxTokens: 40,
      traceparent,
    };
    let steps = 0;
    let accepted = 0;
    for await (const { facts } of pair.generator.generate(request, new AbortController().signal)) {
      steps++;
      accepted += facts.accepted;
    }
    const spans = await tracing.finished();
    expect(new Set(spans.map((span) => span.spanContext().traceId))).toEqual(new Set([traceparent.split('-')[1]]));

    const root = treeOf(spans, 'text_completion fake');
    expect(root.span.parentSpanContext?.spanId).toBe('b7ad6b7169203331');
    expect(root.span.attributes).toMatchObject({
      'gen_ai.operation.name': 'text_completion',
      'gen_ai.usage.input_tokens': 3,
      'gen_ai.usage.output_tokens': 40,
      'gen_ai.response.finish_reasons': ['length'],
    });
    const stepTrees = root.children.filter(({ span }) => span.name === 'ptp.step');
    expect(stepTrees).toHaveLength(steps);
    expect(stepTrees.reduce((sum, { span }) => sum + Number(span.attributes['ptp.accepted']), 0)).toBe(accepted);
    const runs = [{ 'ptp.queue': [] }, { 'ptp.run': [] }];
    expect(shape(stepTrees[0] as SpanTree)).toEqual({
      'ptp.step': [{ 'ptp.draft': [{ 'ptp.draft.run': runs }] }, { 'ptp.verify': [{ 'ptp.verify.run': runs }] }],
    });
  } finally {
    await pair.stop();
    await tracing.stop();
  }
});
