import { existsSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { loadManifest } from '@ptp/core/engine/manifest.ts';
import { type Browser, chromium } from 'playwright-core';
import { Admission } from '../gateway/src/admission.ts';
import { ApiKeys } from '../gateway/src/api-keys.ts';
import { loadChatTemplate } from '../gateway/src/chat.ts';
import { PairGenerator } from '../gateway/src/generate.ts';
import { createHttp } from '../gateway/src/http.ts';
import { RecordedGenerator } from '../gateway/src/recorded-generator.ts';
import { loadTokenizer } from '../gateway/src/tokenizer.ts';
import { TraceStore } from '../gateway/src/trace-store.ts';
import { silent, TestPair } from './test-pair.ts';

const CANDIDATES = [process.env.PTP_CHROMIUM, '/usr/bin/chromium', '/usr/bin/google-chrome'];

/** A browser of this machine; undefined where none is found, which PTP_CHROMIUM can name. */
export const chromiumPath = CANDIDATES.find((path) => path && existsSync(path));

export function launch(): Promise<Browser> {
  if (!chromiumPath) throw new Error('no Chromium found: set PTP_CHROMIUM');
  const args = ['--no-sandbox', '--disable-background-networking'];
  return chromium.launch({ executablePath: chromiumPath, args });
}

/** The real services and the gateway's HTTP side over a model folder. */
export async function servePage(folder: string, keys = new ApiKeys([])) {
  const manifest = await loadManifest(folder);
  const pair = await TestPair.onnx(folder);
  const [tokenizer, chatTemplate] = [await loadTokenizer(folder), await loadChatTemplate(folder)];
  const settings = { bodyLimit: 2 ** 20, stallMillis: 10_000 };
  const admission = new Admission(16);
  const traces = new TraceStore(20);
  const limits = { length: 8, budget: 16, mode: 'overlap' } as const;
  const generator = new RecordedGenerator(traces, pair.services, (streams) => new PairGenerator(streams, limits));
  const app = createHttp({ generator, tokenizer, chatTemplate, admission, keys, settings, logger: silent, traces });
  await app.listen({ port: 0, host: '127.0.0.1' });
  const { port } = app.server.address() as AddressInfo;
  return {
    id: manifest.id,
    url: `http://127.0.0.1:${port}/`,
    close: async () => {
      app.server.closeAllConnections();
      await app.close();
      await pair.stop();
    },
  };
}
