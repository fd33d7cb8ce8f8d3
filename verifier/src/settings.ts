import { serviceSettings } from '@ptp/service-kit/service-settings';
import { address, type SettingsTable } from '@ptp/service-kit/settings';

export const verifierSettings = {
  ...serviceSettings,
  listen: {
    name: 'PTP_LISTEN',
    type: address,
    default: '127.0.0.1:7102',
    doc: 'Address at which the verifier listens.',
  },
} as const satisfies SettingsTable;
