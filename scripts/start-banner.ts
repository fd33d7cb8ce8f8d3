/** Prints which models and engines run once the services are ready, and how to use them. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify, styleText } from 'node:util';
import { ggufFiles, isGguf } from '@ptp/protocol/gguf-files';
import { formatBytes } from '@ptp/service-kit/models/progress';
import { describeDrafter, describeEngine, describeLocalEngine } from './describe-engine.ts';
import type { Engines } from './start-engine.ts';
import type { Models, ReadyModel } from './start-model.ts';
import { type Service, say } from './supervisor.ts';
import { weightBytes } from './weights.ts';

const run = promisify(execFile);

/** What runs. */
export interface Running {
  readonly env: NodeJS.ProcessEnv;
  readonly models: Models;
  readonly engines: Engines;
  readonly url: string;
  /** Process ids of the services. */
  readonly pids: ReadonlyMap<Service['name'], number>;
  /** Time from the start of the services until they were ready. */
  readonly seconds: number;
}

/** Prints the banner. */
export async function sayReady({ env, models, engines, url, pids, seconds }: Running): Promise<void> {
  const { target } = models;
  const { manifest } = target;
  const rows = [
    ['model', [manifest.id, manifest.quantisation, await sizeOf(target)].filter(Boolean).join(', ')],
    ['engine', engines.target ? await describeEngine(engines.target) : await describeLocalEngine(env, target)],
    ['context', `${manifest.context_length} tokens`],
    ['memory', await memoryOf(pids)],
    ['drafting', await draftingOf(models, engines)],
    ['page', `${url} (API: ${url}/docs, traces: ${url}/traces)`],
  ];
  say(`ready at ${styleText('bold', url)} after ${seconds.toFixed(1)} s`);
  for (const [name = '', value = ''] of rows) say(`  ${name.padEnd(8)} ${value}`);
  console.log(`\n${exampleOf(target, url)}\n`);
}

/** Returns the size of the model's weights as text, or an empty text if they are not on this machine. */
async function sizeOf({ path, manifest }: ReadyModel): Promise<string> {
  if (manifest.engine === 'torch') {
    const bytes = weightBytes(path);
    return bytes > 0 ? formatBytes(bytes) : '';
  }
  if (!isGguf(path)) {
    const files = Object.entries(manifest.files).filter(([name]) => name.startsWith('target.'));
    return formatBytes(files.reduce((sum, [, { bytes }]) => sum + bytes, 0));
  }
  const sizes = await Promise.all(ggufFiles(path).paths.map(async (file) => (await stat(file)).size));
  return formatBytes(sizes.reduce((sum, size) => sum + size, 0));
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

async function draftingOf({ target, draftModel }: Models, { drafter: address }: Engines): Promise<string> {
  if (draftModel) {
    const { manifest } = draftModel;
    const ownDrafter = target.manifest.engine !== 'onnx' && manifest.drafter; // The same rule as in openDraftModel.
    const drafter = ownDrafter ? 'its drafter' : 'one token at a time';
    const words = [manifest.id, manifest.quantisation, await sizeOf(draftModel), drafter];
    return `${words.filter(Boolean).join(', ')}; prompt lookup`;
  }
  if (address) return `${await describeDrafter(address)}; prompt lookup`;
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
  const chats = manifest.has_chat_template ?? (manifest.target?.source && hasTemplate(path));
  const messages = [{ role: 'user', content: 'Tell me a short story.' }];
  if (chats) return request('/v1/chat/completions', { messages });
  return request('/v1/completions', { prompt: 'export interface User {' });
}

function hasTemplate(folder: string): boolean {
  return existsSync(join(folder, 'chat_template.jinja'));
}
