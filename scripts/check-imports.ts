/**
 * Enforces one-way imports: prints every import that MAY_IMPORT does not list, and exits with 1 if there are any. The
 * table runs from bottom to top and lists only units above the line, so cyclic imports between folders cannot pass.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const SERVICE = ['protocol/src', 'protocol/src/gen', 'service-kit/src'];
const ENGINE = ['engine/src/sampling', 'engine/src'];

/** Units (folders or single files), each with the units that its non-test code may import. */
export const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  'protocol/src/gen': [],
  'protocol/src': ['protocol/src/gen'],
  'service-kit/src': ['protocol/src', 'protocol/src/gen'],
  'service-kit/src/models': ['protocol/src', 'service-kit/src'],
  'engine/src/sampling': SERVICE,
  'engine/src': [...SERVICE, 'engine/src/sampling'],
  'engine/src/onnx': [...SERVICE, ...ENGINE],
  'engine/src/llama-cpp': [...SERVICE, ...ENGINE],
  'engine/src/remote': [...SERVICE, ...ENGINE],
  'engine/src/sglang': [...SERVICE, ...ENGINE],
  'engine/src/testing': [...SERVICE, ...ENGINE],
  'engine/src/open-engine.ts': [
    ...SERVICE,
    ...ENGINE,
    ...['onnx', 'llama-cpp', 'remote', 'sglang'].map((engine) => `engine/src/${engine}`),
  ],
  'engine/src/model-service.ts': [...SERVICE, ...ENGINE],
  'drafter/src': [...SERVICE, ...ENGINE, 'engine/src/open-engine.ts', 'engine/src/model-service.ts'],
  'verifier/src': [...SERVICE, ...ENGINE, 'engine/src/open-engine.ts', 'engine/src/model-service.ts'],
  ...gateway([
    ['settings.ts', []],
    ['validation.ts', []],
    ['text', ['validation.ts']],
    ['grammar', ['validation.ts']],
    ['access', ['validation.ts', 'settings.ts']],
    ['http', ['validation.ts', 'settings.ts', 'access']],
    ['decode/types.ts', ['grammar']],
    ['decode/proposers', ['grammar', 'decode/types.ts']],
    ['decode', ['settings.ts', 'grammar', 'decode/types.ts', 'decode/proposers']],
    ['openai', 'all above'],
    ['observe', ['access', 'decode', 'decode/types.ts', 'http', 'text']],
    ['app.ts', 'all above'],
    ['grpc.ts', ['settings.ts', 'validation.ts', 'text', 'grammar', 'access', 'decode', 'decode/types.ts', 'openai']],
    ['clients', ['decode', 'decode/types.ts']],
    ['memory-budget.ts', ['app.ts', 'grammar']],
    ['main.ts', 'all above'],
  ]),
};

/**
 * The only folders and files that may import a native runtime or a library of one engine. The gateway uses llama.cpp, on
 * demand, to load the vocabulary of a GGUF file, but runs no model (docs/decisions/0011-gguf-tokenizer.md).
 */
const NATIVE: Readonly<Record<string, readonly string[]>> = {
  'onnxruntime-node': ['engine/src/onnx'],
  'node-llama-cpp': ['service-kit/src/llama-cpp.ts', 'engine/src/llama-cpp', 'gateway/src/text'],
};

function gateway(units: [string, string[] | 'all above'][]): Record<string, string[]> {
  const path = (part: string) => `gateway/src/${part}`;
  const above = (i: number) => units.slice(0, i).map(([unit]) => unit);
  return Object.fromEntries(
    units.map(([unit, others], i) => [
      path(unit),
      [...SERVICE, ...(others === 'all above' ? above(i) : others).map(path)],
    ]),
  );
}

/** Returns the unit of a file: the longest entry of MAY_IMPORT that contains the file. */
function unitOf(file: string): string | undefined {
  const fits = Object.keys(MAY_IMPORT).filter((unit) => file === unit || file.startsWith(`${unit}/`));
  return fits.sort((a, b) => b.length - a.length)[0];
}

/** Returns the path of an imported file from the repository's root, or undefined for a library. */
function resolve(file: string, specifier: string): string | undefined {
  if (specifier.startsWith('.')) return join(dirname(file), specifier);
  const [, workspace, path] = /^@ptp\/([^/]+)\/(.+)$/.exec(specifier) ?? [];
  return workspace && `${workspace}/src/${path}.ts`;
}

/** Returns one line per forbidden import in `source`. @param file path from the repository's root */
export function forbiddenImports(file: string, source: string): string[] {
  const unit = unitOf(file);
  if (!unit) return [`${file} belongs to no unit of MAY_IMPORT`];
  return [...source.matchAll(/(?:^|\s)(?:from|import)\s*\(?\s*'([^']+)'/g)].flatMap(([, specifier = '']) => {
    const owners = NATIVE[specifier];
    if (owners && !owners.some((owner) => file.startsWith(owner)))
      return [`${file} must not import ${specifier}: only ${owners.join(', ')} may`];
    const target = resolve(file, specifier);
    if (target === undefined || target.endsWith('package.json')) return [];
    const other = unitOf(target);
    if (other === unit || (other && MAY_IMPORT[unit]?.includes(other))) return [];
    return [`${file} must not import ${target}`];
  });
}

if (import.meta.main) {
  const roots = ['protocol', 'service-kit', 'engine', 'drafter', 'verifier', 'gateway'].map(
    (name) => `${name}/src/*.ts`,
  );
  const files = execFileSync('git', ['ls-files', ...roots], { encoding: 'utf8' })
    .trim()
    .split('\n');
  const found = files.flatMap((file) => forbiddenImports(file, readFileSync(file, 'utf8')));
  for (const line of found) console.error(line);
  process.exit(found.length > 0 ? 1 : 0);
}
