import type { SettingsOf, SettingsTable } from '@ptp/core/env.ts';

/** Settings of the gateway's HTTP side. */
export const httpSettings = {
  listen: {
    name: 'PTP_HTTP_LISTEN',
    type: 'address',
    default: '127.0.0.1:8000',
    doc: 'Where the OpenAI API is served.',
  },
  bodyLimit: {
    name: 'PTP_HTTP_BODY_LIMIT',
    type: 'integer',
    default: 4 * 1024 * 1024,
    min: 1024,
    doc: 'Largest request body in bytes.',
  },
  maxStreams: {
    name: 'PTP_HTTP_MAX_STREAMS',
    type: 'integer',
    default: 64,
    min: 1,
    doc: 'Sequences generated at once; a request counts `n` for each of its prompts. Further requests get 429.',
  },
  stallMillis: {
    name: 'PTP_HTTP_STALL_MILLIS',
    type: 'integer',
    default: 30_000,
    min: 1,
    doc: 'Milliseconds that a client may leave a stream unread, once buffers are full, before it is disconnected.',
  },
} as const satisfies SettingsTable;

export type HttpSettings = SettingsOf<typeof httpSettings>;
