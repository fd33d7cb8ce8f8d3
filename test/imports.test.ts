import { expect, test } from 'vitest';
import { forbiddenImports, MAY_IMPORT } from '../scripts/check-imports.ts';

test('an import in the wrong direction is reported with both files', () => {
  const planted = "import { chat } from '../openai/chat.ts';\n";
  expect(forbiddenImports('gateway/src/decode/driver.ts', planted)).toEqual([
    'gateway/src/decode/driver.ts must not import gateway/src/openai/chat.ts',
  ]);
  expect(forbiddenImports('protocol/src/client.ts', "import { createLogger } from '@ptp/service-kit/log';\n")).toEqual([
    'protocol/src/client.ts must not import service-kit/src/log.ts',
  ]);
});

test('only the folder of an engine loads its native runtime', () => {
  const source = "import { InferenceSession } from 'onnxruntime-node';\n";
  expect(forbiddenImports('engine/src/onnx/worker.ts', source)).toEqual([]);
  expect(forbiddenImports('verifier/src/verifier.ts', source)).toEqual([
    'verifier/src/verifier.ts must not import onnxruntime-node: only engine/src/onnx may',
  ]);
});

test('product code does not import test doubles', () => {
  const source = "import { FakeTarget } from '@ptp/engine/testing/fake-engine';\n";
  expect(forbiddenImports('verifier/src/main.ts', source)).toHaveLength(1);
});

test('the table has no cycle: each unit imports only units above it', () => {
  const units = Object.keys(MAY_IMPORT);
  const order = new Map(units.map((unit, i) => [unit, i]));
  const upwards = units.flatMap((unit) =>
    (MAY_IMPORT[unit] ?? [])
      .filter((other) => (order.get(other) ?? 0) >= (order.get(unit) ?? 0))
      .map((other) => [unit, other]),
  );
  expect(upwards).toEqual([]);
});
