import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { suites } from '../bench/suites/index.ts';
import { parseFlags } from '../scripts/start-options.ts';

// Commands of the documents, apart from those of Python programs, which training/tests/test_documented_commands.py runs.

const ROOT = join(import.meta.dirname, '..');
const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');
const PROGRAM = /^(\w+=\S+ )*(npm|npx|node|curl|docker|kubectl) /;
const BLOCK = /^ *```(\w*)\n(.*?)^ *```/gms;

/** Commands that run here, and options with which they take seconds. */
const RUN: Readonly<Record<string, string>> = {
  'npm run bench -- exact': '--models test/models/tiny --sequences 1 --tokens 8',
  'npm run bench -- decode --mode overlap': '--models test/models/tiny --prompts 1 --tokens 8',
  'npm run bench -- load --mode auto': '--models test/models/tiny --streams 1 --repeats 1 --tokens 8',
  'npm run bench -- engine --models PATH': '--models test/models/tiny-in-place --contexts 20 --streams 1,2 --tokens 2',
  'npm run ptp -- --help': '',
};

/** Patterns of the other commands, and the test file that runs them or the reason why none does. */
const ELSEWHERE: readonly (readonly [pattern: RegExp, where: string])[] = [
  [/^npm start --$|^npm start -- --(help|help-all|model)$/, 'test/start.test.ts'],
  [/^npm start -- --model training\/work\/models\/tiny$/, 'test/start.test.ts'],
  [/^npm start -- --model \S+\.gguf$|^npm start -- --model (FILE|x\.gguf)$/, 'test/gguf-server.test.ts'],
  [/^npm start -- --model \S+\.gguf --draft-model \S+\.gguf$/, 'test/gguf-draft.test.ts'],
  [/^npm start -- --model Qwen\/Qwen3-8B-GGUF/, 'test/start-model.test.ts'],
  [/^npm start -- --engine torch( --model \S+ --draft-model \S+)?$/, 'test/start-torch.test.ts'],
  [/^npm start -- --model FOLDER --engine torch$/, 'test/start-torch.test.ts'],
  [/^npm start -- --model work\/qwen3\/models\/hugging-face$/, 'test/start.test.ts'],
  [/^npm start -- --config ptp\.yaml$/, 'test/start-config.test.ts'],
  [/^npm start -- --engine http:/, 'test/sglang.test.ts'],
  [/^npm run check:sglang/, 'test/check-sglang.test.ts'],
  [/^npm run ptp -- complete '.*' --compare$|^npm run chat$/, 'cli/test/cli.test.ts'],
  [/^npm run ptp -- models list$/, 'cli/test/models.test.ts'],
  [/^curl -N http:/, 'test/examples.test.ts'],
  [/^PTP_MODEL=models\/default node \w+\/src\/main\.ts$/, 'test/operations.test.ts'],
  [/^npm start -- --device auto$/, 'engine/test/webgpu/device.test.ts'],
  [/^npm run pack$|^npx ptp( chat)?$/, 'test/packages.test.ts'],
  [/^npm publish$/, 'makes a release'],
  [/^node scripts\/with-install\.mjs$/, 'test/install.test.ts'],
  [/^node bench\/gpu\/webgpu\.ts \S+$/, 'takes a GPU'],
  [/^docker (build|run|exec) /, 'takes Docker'],
  [/^docker compose .*|^PTP_MODELS_FOLDER=.* docker compose /, 'test/deploy-images.test.ts'],
  [/^kubectl apply -k /, 'test/deploy-manifests.test.ts'],
  [/^kubectl -n ptp create secret /, 'takes a cluster'],
  [/^docker buildx /, 'asks a registry'],
  [/^npm run train -- tiny$/, 'training/tests/test_cli.py'],
  [/^npx vitest run /, 'runs tests'],
  [/^npm (ci|install|test)\b|^npm run (check|coverage|fuzz|format|settings|test:\w+)$/, 'installs, checks or formats'],
  [/^npm run (chaos|soak|train|ptp|check:sglang)\b/, 'takes minutes'],
  [/^npm run bench -- (SUITE --save|\S+( .*)?)$/, 'takes minutes'],
];
/** Programs without a parser that can be imported. Their sources name each option. */
const SOURCES: Readonly<Record<string, readonly string[]>> = {
  chaos: ['bench/chaos/main.ts'],
  soak: ['bench/chaos/main.ts'],
  ptp: ['cli/main.ts', 'cli/models.ts'],
  'check:sglang': ['scripts/check-sglang.ts', 'scripts/sglang-checks.ts'],
};

function documents(): string[] {
  const listed = execFileSync('git', ['ls-files', '*.md'], { cwd: ROOT }).toString().split('\n').filter(Boolean);
  return listed.filter(
    (path) => existsSync(join(ROOT, path)) && path !== 'CHANGELOG.md' && !path.startsWith('models/'),
  );
}

/** Returns the commands of a document, each on one line and without comments. */
function commandsOf(path: string): string[] {
  const text = read(path);
  const blocks = [...text.matchAll(BLOCK)].filter(([, language = '']) => ['', 'sh'].includes(language));
  const lines = blocks.flatMap(([, , block = '']) => block.replaceAll('\\\n', ' ').split('\n'));
  const commands = lines.flatMap((line) => line.replace(/(^|\s)#.*/, '').split(' && '));
  const inline = [...text.replace(BLOCK, '').matchAll(/`([^`]+)`/g)].map(([, code = '']) => code);
  const plain = [...commands, ...inline].map((command) => command.replace(/\s+/g, ' ').replace(/^[ (]+|[ )]+$/g, ''));
  return plain
    .map((command) => command.replace(/^npm start$/, 'npm start --'))
    .filter((command) => PROGRAM.test(command));
}

/** Splits a command into words like a shell. */
const words = (command: string): string[] =>
  [...command.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain = '']) => quoted ?? plain);

/** Returns the options of a command that its program does not know. */
function unknownOptions(command: string): string[] {
  const [, verb = '', script = '', ...rest] = words(command);
  const options = words(command)
    .filter((word) => word.startsWith('--') && word !== '--')
    .map((word) => word.replace(/=.*/, ''));
  if (command.startsWith('npm start')) {
    // A mention of a flag, such as `npm start -- --model`, has no value.
    parseFlags(/--(model|engine)$/.test(command) ? [] : [script, ...rest].filter((word) => word !== '--'));
    return [];
  }
  if (verb !== 'run' || !command.startsWith('npm')) return [];
  if (script === 'bench') {
    const [, name] = rest;
    if (name === 'SUITE') return [];
    const suite = suites.find((each) => each.name() === name);
    if (suite === undefined) return [name ?? ''];
    return options.filter((option) => !suite.options.some(({ long }) => long === option));
  }
  const source = (SOURCES[script] ?? []).map(read).join('\n');
  return options.filter((option) => option !== '--help' && source !== '' && !source.includes(option));
}

const DOCUMENTED = [...new Set(documents().flatMap(commandsOf))];
const elsewhere = (command: string) => ELSEWHERE.find(([pattern]) => pattern.test(command))?.[1];

describe('documented commands', () => {
  test('run here or elsewhere', () => {
    expect(DOCUMENTED.filter((command) => !(command in RUN) && elsewhere(command) === undefined)).toEqual([]);
    expect(Object.keys(RUN).filter((command) => !DOCUMENTED.includes(command))).toEqual([]);
    const unused = ELSEWHERE.filter(([pattern]) => !DOCUMENTED.some((command) => pattern.test(command)));
    expect(unused).toEqual([]);
    const files = ELSEWHERE.map(([, where]) => where).filter((where) => where.includes('/'));
    expect(files.filter((file) => !existsSync(join(ROOT, file)))).toEqual([]);
  });

  test.each(DOCUMENTED)('%s has known options', (command) => {
    expect(unknownOptions(command)).toEqual([]);
  });

  test.each(Object.entries(RUN))('%s', { timeout: 60_000 }, (command, options) => {
    const [script = ''] = command.replace('npm run ', '').split(' ');
    const main = { bench: 'bench/main.ts', ptp: 'cli/main.ts' }[script] ?? '';
    const args = [main, ...words(`${command} ${options}`).slice(4)];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: ROOT, encoding: 'utf8' });
    expect(status, stderr).toBe(0);
    expect(stdout).not.toBe('');
  });
});
