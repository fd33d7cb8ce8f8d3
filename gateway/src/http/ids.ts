import { randomUUID } from 'node:crypto';

/** Creates an id such as `req_0f8c...`: the prefix and 32 hex digits. */
export function newId(prefix: string): string {
  return prefix + randomUUID().replaceAll('-', '');
}
