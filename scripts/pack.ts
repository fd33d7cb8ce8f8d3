/**
 * `npm run pack`: builds the packages for npm: the libraries `@ptp/*`, and `ptp-server`. Writes a folder and an archive
 * for each package to dist/packages. The packages contain JavaScript, because Node strips no types in
 * node_modules. For tests, --out DIR replaces dist, and --without-weights saves time by leaving out the weights of the
 * bundled pair.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { runNpm } from './npm.mjs';

const ROOT = join(import.meta.dirname, '..');
const { values: options } = parseArgs({
  options: { out: { type: 'string', default: join(ROOT, 'dist') }, 'without-weights': { type: 'boolean' } },
});
const BUILD = resolve(options.out, 'build');
const PACKAGES = resolve(options.out, 'packages');
const LIBRARIES = ['protocol', 'service-kit', 'engine'];
const APPS = ['drafter', 'verifier', 'gateway'];
/** Parts of ptp-server that are not compiled. */
const ASSETS = [
  ...['README.md', 'gateway/web', 'scripts/npm.mjs', 'training/src', 'training/pyproject.toml'],
  options['without-weights'] ? 'models/default/manifest.json' : 'models/default',
];

type Names = Record<string, string>;
interface Manifest {
  readonly version: string;
  readonly exports?: Names;
  readonly dependencies?: Names;
  readonly [field: string]: unknown;
}

const read = (folder: string): Manifest => JSON.parse(readFileSync(join(ROOT, folder, 'package.json'), 'utf8'));

/** Returns the fields that all packages have. npm checks that provenance and `repository` name the same repository. */
function common({ private: _, scripts, workspaces, devDependencies, optionalDependencies, ...fields }: Manifest) {
  const { GITHUB_REPOSITORY } = process.env;
  return {
    ...fields,
    engines: { node: '>=24' },
    ...(GITHUB_REPOSITORY && { repository: `github:${GITHUB_REPOSITORY}` }),
    publishConfig: { access: 'public', provenance: true },
  };
}

/** Returns the manifest of a library, without the exports of test doubles. */
function libraryManifest(manifest: Manifest): object {
  const entries = Object.entries(manifest.exports ?? {}).filter(([path]) => !path.startsWith('./testing/'));
  const exports = entries.map(([path, source]) => {
    const file = source.replace(/\.ts$/, '');
    return [path, { types: `${file}.d.ts`, default: `${file}.js` }];
  });
  return { ...common(manifest), exports: Object.fromEntries(exports), files: ['src', '!src/testing', 'LICENSE'] };
}

/** Returns the manifest of ptp-server, with the dependencies of the services that the package contains. */
function serverManifest(manifest: Manifest): object {
  const needed = [manifest, ...APPS.map(read)].flatMap(({ dependencies = {} }) => Object.entries(dependencies));
  return {
    ...common(manifest),
    bin: { ptp: 'cli/ptp.js' },
    files: ['bench', 'cli', 'scripts', ...APPS, 'models', 'training', '!**/__pycache__'],
    dependencies: Object.fromEntries(needed.sort(([a], [b]) => (a < b ? -1 : 1))),
  };
}

/**
 * Writes and packs a package.
 *
 * @param parts paths of compiled files and folders in `from`
 * @param assets paths of other files and folders in the repository
 */
function pack(name: string, manifest: object, from: string, parts: readonly string[], assets: readonly string[]): void {
  const folder = join(PACKAGES, name);
  for (const part of parts) cpSync(join(from, part), join(folder, part), { recursive: true });
  for (const asset of [...assets, 'LICENSE']) cpSync(join(ROOT, asset), join(folder, asset), { recursive: true });
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
  const problem = runNpm(['pack', '--loglevel=error', '--pack-destination', PACKAGES], folder);
  if (problem) throw new Error(problem);
}

for (const folder of [BUILD, PACKAGES]) rmSync(folder, { recursive: true, force: true });
mkdirSync(PACKAGES, { recursive: true });
const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
execFileSync(process.execPath, [tsc, '-p', 'tsconfig.build.json', '--outDir', BUILD], { cwd: ROOT, stdio: 'inherit' });
for (const name of LIBRARIES) pack(name, libraryManifest(read(name)), join(BUILD, name), ['src'], []);
pack('ptp-server', serverManifest(read('.')), BUILD, ['bench', 'cli', 'scripts', ...APPS], ASSETS);
