import { serviceSettings } from '@ptp/service-kit/service-settings';
import { type SettingsTable, sharedSettings } from '@ptp/service-kit/settings';
import { tlsSettings } from '@ptp/service-kit/tls-settings';

/** Settings of the verifier. */
export const verifierSettings = {
  ...sharedSettings,
  ...serviceSettings,
  ...tlsSettings,
  address: {
    name: 'PTP_VERIFIER_ADDRESS',
    type: 'address',
    default: '127.0.0.1:7102',
    doc: 'Where the verifier listens: host:port or unix:/path.',
  },
  draftLimit: {
    name: 'PTP_VERIFIER_DRAFT_LIMIT',
    type: 'integer',
    default: 64,
    min: 1,
    max: 256,
    doc: 'Longest draft in one step, tokens.',
  },
} as const satisfies SettingsTable;
