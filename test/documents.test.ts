import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { SETTING_NAMES } from '@ptp/service-kit/setting-names';
import { describe, expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '..');
const TRACKED = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], { cwd: ROOT })
  .toString()
  .split('\n')
  .filter((path) => path !== '' && existsSync(join(ROOT, path)));
const DOCUMENTS = TRACKED.filter((path) => path.endsWith('.md') && !path.startsWith('models/'));
const TOP_FOLDERS = new Set(TRACKED.filter((path) => path.includes('/')).map((path) => path.replace(/\/.*/, '')));
const SCRIPTS = Object.keys(JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).scripts);
/** Folders that exist only after a command has created them. */
const GENERATED = /\/(node_modules|\.venv|work)(\/|$)/;
/** Variables that are read by tools of this repository, in addition to the services' settings. */
const OTHER_VARIABLES = ['PTP_URL', 'PTP_KEY', 'PTP_MODELS_FOLDER', 'PTP_PYTHON'];

const read = (path: string) => readFileSync(join(ROOT, path), 'utf8');
const withoutCode = (text: string) => text.replace(/^```.*?^```$/gms, '');

/** Returns the anchors that GitHub gives to the headings of a document. */
function anchors(path: string): Set<string> {
  const headings = [...withoutCode(read(path)).matchAll(/^#+ (.+)$/gm)].map(([, title = '']) => title);
  return new Set(
    headings.map((title) =>
      title
        .toLowerCase()
        .replace(/[^\p{L}\p{N}\s_-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

function brokenLinks(path: string): string[] {
  const links = [...withoutCode(read(path)).matchAll(/\]\(\s*([^)\s]+)/g)].map(([, link = '']) => link);
  return links.filter((link) => {
    if (/^[a-z]+:/.test(link)) return false;
    const [file = '', anchor] = link.split('#');
    const target = file === '' ? path : join(dirname(path), file);
    if (!existsSync(join(ROOT, target))) return true;
    return anchor !== undefined && !anchors(target).has(anchor);
  });
}

/** Returns true if text in backticks looks like a path in this repository. */
function isPath(code: string): boolean {
  const [top = ''] = code.split('/');
  return /^[\w./-]+$/.test(code) && code.includes('/') && TOP_FOLDERS.has(top) && !GENERATED.test(code);
}

function missingPaths(path: string): string[] {
  const code = [...withoutCode(read(path)).matchAll(/`([^`\n]+)`/g)].map(([, text = '']) => text);
  return code.filter(isPath).filter((each) => !existsSync(join(ROOT, each)));
}

function longLines(path: string): string[] {
  return read(path)
    .split('\n')
    .flatMap((line, i) => ([...line].length > 120 ? [`line ${i + 1}`] : []));
}

describe.each(DOCUMENTS)('%s', (path) => {
  test('has links and anchors that resolve', () => {
    expect(brokenLinks(path)).toEqual([]);
  });

  test('names files that exist', () => {
    expect(missingPaths(path)).toEqual([]);
  });

  test('names npm scripts that exist', () => {
    const named = [...read(path).matchAll(/npm run ([\w:]+)/g)].map(([, name = '']) => name);
    expect(named.filter((name) => !SCRIPTS.includes(name))).toEqual([]);
  });

  test('has lines of at most 120 characters', () => {
    expect(longLines(path)).toEqual([]);
  });

  test('names variables that exist', () => {
    // A changelog also names variables that were removed.
    const named =
      path === 'CHANGELOG.md' ? [] : [...read(path).matchAll(/\bPTP_[A-Z_]*[A-Z]\b/g)].map(([name]) => name);
    expect([...new Set(named)].filter((name) => ![...SETTING_NAMES, ...OTHER_VARIABLES].includes(name))).toEqual([]);
  });
});

test('README.md has at most 700 words', () => {
  expect(read('README.md').split(/\s+/).filter(Boolean).length).toBeLessThanOrEqual(700);
});

test('each document of docs/ and each decision can be reached from README.md', () => {
  const linked = [read('README.md'), read('docs/decisions/README.md')].join('\n');
  const unreached = DOCUMENTS.filter((path) => path.startsWith('docs/') && !linked.includes(path.replace(/.*\//, '')));
  expect(unreached).toEqual([]);
});

test('each picture of docs/ is shown or linked in a document', () => {
  const texts = DOCUMENTS.map(read).join('\n');
  const pictures = TRACKED.filter((path) => /^docs\/.*\.(svg|png)$/.test(path));
  expect(pictures.filter((path) => !texts.includes(path.replace(/.*\//, '')))).toEqual([]);
});
