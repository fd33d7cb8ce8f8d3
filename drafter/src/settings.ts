import { draftModelSetting, serviceSettings } from '@ptp/service-kit/service-settings';
import { address, type SettingsTable } from '@ptp/service-kit/settings';

export const drafterSettings = {
  ...serviceSettings,
  draftModel: draftModelSetting,
  listen: {
    name: 'PTP_LISTEN',
    type: address,
    default: '127.0.0.1:7101',
    doc: 'Address at which the drafter listens.',
  },
} as const satisfies SettingsTable;
