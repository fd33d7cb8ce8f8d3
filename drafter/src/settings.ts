import { draftModelSetting, serviceSettings } from '@ptp/service-kit/service-settings';
import { type SettingsTable, sharedSettings } from '@ptp/service-kit/settings';
import { tlsSettings } from '@ptp/service-kit/tls-settings';

/** Settings of the drafter. */
export const drafterSettings = {
  ...sharedSettings,
  ...serviceSettings,
  ...tlsSettings,
  address: {
    name: 'PTP_DRAFTER_ADDRESS',
    type: 'address',
    default: '127.0.0.1:7101',
    doc: 'Where the drafter listens: host:port or unix:/path.',
  },
  draftModel: draftModelSetting,
  budgetLimit: {
    name: 'PTP_DRAFTER_BUDGET_LIMIT',
    type: 'integer',
    default: 64,
    min: 1,
    max: 1024,
    doc: 'Most tokens drafted in one step over all branches.',
  },
  blockLimit: {
    name: 'PTP_DRAFTER_BLOCK_LIMIT',
    type: 'integer',
    default: 64,
    min: 1,
    max: 256,
    doc: 'Longest block under verification that a step may name, tokens.',
  },
} as const satisfies SettingsTable;
