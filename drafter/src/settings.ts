import { draftModelSetting, serviceSettings } from '@ptp/service-kit/service-settings';
import { address, setting } from '@ptp/service-kit/settings';

export const drafterSettings = {
  ...serviceSettings,
  draftModel: draftModelSetting,
  listen: setting('PTP_LISTEN', address, '127.0.0.1:7101').doc('Address at which the drafter listens.'),
};
