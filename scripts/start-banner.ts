/** Prints which models and engines run once the services are ready, and how to use them. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify, styleText } from 'node:util';
import { isGguf } from '@ptp/protocol/manifest';
import { formatBytes } from '@ptp/service-kit/models/progress';
import { settings } from '@ptp/service-kit/settings';
import { verifierSettings } from '../verifier/src/settings.ts';
import type { Models, ReadyModel } from './start-model.ts';
import { root, type Service, say } from './supervisor.ts';

const run = promisify(execFile);

/**
 * Prints the banner.
 *
 * @param pids process ids of the services
 * @param seconds time from the start of the services until they were ready
 */
export async function sayReady(
  env: NodeJS.ProcessEnv,
  { target, draftModel }: Models,
  url: string,
  pids: ReadonlyMap<Service['name'], number>,
  seconds: number,
): Promise<void> {
  const { manifest } = target;
  const rows = [
    ['model', `${manifest.id}, ${manifest.quantisation}, ${await sizeOf(target)}`],
    ['engine', await engineOf(env, target)],
    ['context', `${manifest.context_length} tokens`],
    ['memory', await memoryOf(pids)],
    ['drafting', await draftingOf({ target, draftModel })],
    ['page', `${url} (API: ${url}/docs, traces: ${url}/traces)`],
  ];
  say(`ready at ${styleText('bold', url)} after ${seconds.toFixed(1)} s`);
  for (const [name = '', value = ''] of rows) say(`  ${name.padEnd(8)} ${value}`);
  console.log(`\n${exampleOf(target, url)}\n`);
}

/** Returns the size of the target's files as text. */
async function sizeOf({ path, manifest }: ReadyModel): Promise<string> {
  if (!isGguf(path)) {
    const files = Object.entries(manifest.files).filter(([name]) => name.startsWith('target.'));
    return formatBytes(files.reduce((sum, [, { bytes }]) => sum + bytes, 0));
  }
  const [, prefix, parts] = /^(.*)-00001-of-(\d{5})\.gguf$/i.exec(path) ?? [];
  const part = (n: number) => `${prefix}-${String(n).padStart(5, '0')}-of-${parts}.gguf`;
  const files = parts ? Array.from({ length: Number(parts) }, (_, i) => part(i + 1)) : [path];
  const sizes = await Promise.all(files.map(async (file) => (await stat(file)).size));
  return formatBytes(sizes.reduce((sum, size) => sum + size, 0));
}

/** Returns a description of the engine, its device and its number of threads. */
async function engineOf(env: NodeJS.ProcessEnv, { path, manifest }: ReadyModel): Promise<string> {
  const { threads, gpuLayers } = settings(verifierSettings, env);
  const count = (n: number) => `${n} thread${n === 1 ? '' : 's'}`;
  if (!isGguf(path)) return `ONNX Runtime on the CPU, ${count(threads || 1)}`;
  const probe = await run(process.execPath, [join(root, 'scripts', 'llama-device.ts')], { env }).catch(() => undefined);
  if (!probe) return 'llama.cpp';
  const { gpu, names, threads: preset } = JSON.parse(probe.stdout);
  const onGpu = gpu && gpuLayers !== 0;
  const layers =
    typeof gpuLayers === 'number' ? `${Math.min(gpuLayers, manifest.sizes.layers)} layers` : 'as many layers as fit';
  const device = onGpu ? `${names.join(', ')} (${gpu}, ${layers}) and the CPU` : 'the CPU';
  return `llama.cpp on ${device}, ${count(threads || preset)}`;
}

/** Returns the memory of each service and their total as text. */
async function memoryOf(pids: ReadonlyMap<string, number>): Promise<string> {
  const sizes = await Promise.all([...pids].map(async ([name, pid]) => ({ name, bytes: await processMemory(pid) })));
  const known = sizes.filter(({ bytes }) => bytes > 0);
  if (known.length === 0) return 'not measured on this system';
  const parts = known.map(({ name, bytes }) => `${name} ${formatBytes(bytes)}`);
  return `${formatBytes(known.reduce((sum, { bytes }) => sum + bytes, 0))} (${parts.join(', ')})`;
}

/**
 * Returns the number of bytes that a process uses, or 0 if they cannot be measured. On Linux, memory that processes
 * share counts only once.
 */
async function processMemory(pid: number): Promise<number> {
  const smaps = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '');
  const shared = /^Pss: +(\d+) kB/m.exec(smaps)?.[1];
  if (shared) return Number(shared) * 1024;
  const ps = await run('ps', ['-o', 'rss=', '-p', String(pid)]).catch(() => undefined);
  return Number(ps?.stdout ?? 0) * 1024;
}

async function draftingOf({ target, draftModel }: Models): Promise<string> {
  if (draftModel) {
    const { manifest } = draftModel;
    const ownDrafter = isGguf(target.path) && manifest.drafter; // The same rule as in openDraftModel.
    const drafter = ownDrafter ? 'its drafter' : 'one token at a time';
    return `${manifest.id}, ${manifest.quantisation}, ${await sizeOf(draftModel)}, ${drafter}; prompt lookup`;
  }
  const { drafter } = target.manifest;
  if (drafter) return `the model's drafter, blocks of up to ${drafter.max_branch_length} tokens; prompt lookup`;
  return 'prompt lookup only; for a faster server, name a smaller model of the same family with --draft-model';
}

/** Returns a command that generates text: a chat if the model supports chats, otherwise a completion. */
function exampleOf({ path, manifest }: ReadyModel, url: string): string {
  const request = (route: string, body: object) => {
    const json = JSON.stringify({ model: 'default', ...body, max_tokens: 120, temperature: 0.7, stream: true });
    return `curl -N ${url}${route} -H 'content-type: application/json' -d '${json}'`;
  };
  const chats = isGguf(path) ? manifest.has_chat_template : manifest.target?.source && hasTemplate(path);
  const messages = [{ role: 'user', content: 'Tell me a short story.' }];
  if (chats) return request('/v1/chat/completions', { messages });
  return request('/v1/completions', { prompt: 'export interface User {\n' });
}

function hasTemplate(folder: string): boolean {
  return existsSync(join(folder, 'chat_template.jinja'));
}
