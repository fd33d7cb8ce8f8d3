import type { SettingType } from '@ptp/service-kit/settings';
import { StartError } from './supervisor.ts';

/** Returns the value of a flag on the command line. @throws StartError naming the flag, its limits and the value */
export function flagValue<T>(flag: string, { schema, expected }: SettingType<T>, text: string): T {
  const { success, data } = schema.safeParse(text);
  if (success) return data;
  throw new StartError(`${flag} must be ${expected}, got ${JSON.stringify(text)}`);
}
