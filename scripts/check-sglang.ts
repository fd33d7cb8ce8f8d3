/**
 * `npm run check:sglang -- URL`: checks on a running SGLang server what engine/src/sglang assumes of it, and prints what
 * differs. Ends with status 1 if anything does.
 */
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { loadManifest } from '@ptp/protocol/manifest';
import { sharedSettings } from '@ptp/service-kit/service-settings';
import { settings } from '@ptp/service-kit/settings';
import { checkBatchInvariance } from '../engine/src/batch-invariance.ts';
import { randomTokens } from '../engine/src/sampling/uniforms.ts';
import { openTargetEngine } from '../engine/src/sglang/engine.ts';
import { SglangServer } from '../engine/src/sglang/server.ts';
import { flagValue } from './flag-value.ts';
import { type CheckContext, type CheckResult, checks } from './sglang-checks.ts';

const USAGE = `Usage: npm run check:sglang -- URL [--model FOLDER] [--context-length N]

Checks that a running SGLang server can serve as the engine of the verifier.

  --model FOLDER      folder with the model's config.json and tokenizer.json (default: PTP_MODEL, else the server's path)
  --context-length N  maximum number of tokens in a sequence (default: PTP_CONTEXT_LENGTH, else the model's)`;
/** Time in milliseconds after which the last check starts no further comparison. */
const INVARIANCE_MS = 30_000;

interface CheckOptions {
  /** Folder of the model. Default: the path that the server reports. */
  readonly model?: string | undefined;
  readonly contextLength?: number;
  readonly invarianceMs?: number;
}

/** Runs all checks and prints one line for each. @returns false if a check failed */
export async function checkSglang(
  url: string,
  { model, contextLength = 0, invarianceMs = INVARIANCE_MS }: CheckOptions = {},
  print: (line: string) => void = console.log,
): Promise<boolean> {
  const server = new SglangServer(url);
  const report = (name: string, { ok, found }: CheckResult) =>
    print(`${ok ? 'ok     ' : 'DIFFERS'}  ${name}: ${found}`);
  try {
    const { model_path: path = '' } = await server.info();
    const dir = model ?? path;
    const manifest = await loadManifest(dir, contextLength);
    const context: CheckContext = {
      server,
      vocabulary: manifest.sizes.vocab,
      contextLength: manifest.context_length,
      text: randomText(manifest.sizes.vocab),
    };
    let passed = true;
    for (const [name, check] of Object.entries(checks)) {
      const result = await check(context).catch((error: Error) => ({ ok: false, found: error.message }));
      report(name, result);
      passed &&= result.ok;
    }
    const whole = await checkEngine(url, dir, contextLength, invarianceMs).catch((error: Error) => ({
      ok: false,
      found: error.message,
    }));
    report('the engine is batch-invariant', whole);
    return passed && whole.ok;
  } catch (error) {
    print(`DIFFERS  ${(error as Error).message}`);
    return false;
  } finally {
    server.close();
  }
}

/** Runs the self-check of the verifier. */
async function checkEngine(url: string, dir: string, contextLength: number, budgetMs: number): Promise<CheckResult> {
  const engine = await openTargetEngine({ dir, contextLength, address: url, startLimitMs: 0 });
  try {
    const { invariant, rows } = await checkBatchInvariance(engine, budgetMs);
    return { ok: invariant, found: `${rows} positions compared` };
  } finally {
    await engine.dispose();
  }
}

/** Returns a source of random texts that differ in every run, so that the server's cache cannot have them. */
function randomText(vocabulary: number): CheckContext['text'] {
  const seed = BigInt(Date.now());
  let position = 0;
  return (count) => {
    const tokens = randomTokens(seed, count, vocabulary, position);
    position += count;
    return tokens;
  };
}

async function main(): Promise<boolean> {
  const options = {
    model: { type: 'string' },
    'context-length': { type: 'string' },
    help: { type: 'boolean' },
  } as const;
  const { values, positionals } = parseArgs({ options, allowPositionals: true });
  const [url] = positionals;
  if (values.help || !url || !URL.canParse(url)) {
    console.log(USAGE);
    return values.help === true;
  }
  const { PTP_MODEL, INIT_CWD = '.' } = process.env;
  const model = values.model === undefined ? PTP_MODEL : resolve(INIT_CWD, values.model);
  return checkSglang(url, { model, contextLength: contextLengthOf(values['context-length']) });
}

/** Returns the value of --context-length, or else that of PTP_CONTEXT_LENGTH. @throws if it is invalid */
function contextLengthOf(given: string | undefined): number {
  const { contextLength } = sharedSettings;
  if (given !== undefined) return flagValue('--context-length', contextLength.type, given);
  return settings({ contextLength }, process.env).contextLength;
}

if (import.meta.main) {
  try {
    process.exitCode = (await main()) ? 0 : 1;
  } catch (error) {
    console.error((error as Error).message);
    process.exitCode = 1;
  }
}
