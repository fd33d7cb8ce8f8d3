import { randomUUID } from 'node:crypto';

/** A new id such as `req_0f8c...`: the prefix and 32 hex digits. */
export function newId(prefix: string): string {
  return prefix + randomUUID().replaceAll('-', '');
}
