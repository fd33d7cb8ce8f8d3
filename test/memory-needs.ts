import { join } from 'node:path';
import { type ModelMemory, modelBudget } from '@ptp/engine/memory-budget';
import { loadManifest } from '@ptp/protocol/manifest';
import { gatewayBudget } from '../gateway/src/memory-budget.ts';
import { gatewaySettings } from '../gateway/src/settings.ts';

const manifest = await loadManifest(join(import.meta.dirname, '../models/default'));
const maxStreams = gatewaySettings.maxStreams.default;
const model = (kind: ModelMemory['kind']) =>
  modelBudget({ kind, manifest, sequences: maxStreams, prefixCacheBytes: 256e6 }, Number.POSITIVE_INFINITY).total;

/** Memory in bytes that each service needs for the default model with the maximum number of streams. */
export const memoryNeeds: Readonly<Record<string, number>> = {
  verifier: model('target'),
  drafter: model('drafter'),
  gateway: gatewayBudget(
    { maxStreams, tracesKept: gatewaySettings.tracesKept.default },
    manifest.sizes,
    Number.POSITIVE_INFINITY,
  ).total,
};

/** Converts a memory limit of Kubernetes or Compose, such as 2Gi or 2g, to bytes. */
export function bytesOf(limit: string): number {
  const [, number, unit = ''] = /^(\d+)(Mi|Gi|m|g)$/.exec(limit) ?? [];
  return Number(number) * 2 ** (unit.toLowerCase().startsWith('g') ? 30 : 20);
}
