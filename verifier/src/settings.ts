import { serviceSettings } from '@ptp/service-kit/service-settings';
import { address, setting } from '@ptp/service-kit/settings';

export const verifierSettings = {
  ...serviceSettings,
  listen: setting('PTP_LISTEN', address, '127.0.0.1:7102').doc('Address at which the verifier listens.'),
};
