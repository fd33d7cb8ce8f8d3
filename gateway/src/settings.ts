import { draftModelSetting, serviceSettings, stallSetting } from '@ptp/service-kit/service-settings';
import { type SettingsOf, type SettingsTable, sharedSettings } from '@ptp/service-kit/settings';
import { tlsSettings } from '@ptp/service-kit/tls-settings';

/** How steps may draft, see pace.ts; `auto` for what measures fastest. */
export const DRAFT_MODES = ['auto', 'overlap', 'sequential', 'plain'] as const;
/** Longest block that can be asked for, in tokens. */
export const LONGEST_DRAFT = 64;

/** Settings of the gateway's two doors. */
export const httpSettings = {
  listen: {
    name: 'PTP_HTTP_ADDRESS',
    type: 'address',
    default: '127.0.0.1:8080',
    doc: 'Where the OpenAI API is served.',
  },
  grpcListen: {
    name: 'PTP_GRPC_ADDRESS',
    type: 'address',
    default: '127.0.0.1:8081',
    doc: 'Where ptp.v1.GenerationService is served.',
  },
  httpCert: {
    name: 'PTP_HTTP_TLS_CERT_FILE',
    type: 'string',
    default: '',
    doc: 'Certificate chain (PEM) that both doors show to clients, HTTPS and gRPC over TLS; empty for neither. Read again when it changes.',
  },
  httpKey: {
    name: 'PTP_HTTP_TLS_KEY_FILE',
    type: 'string',
    default: '',
    doc: "That certificate's private key (PEM).",
  },
  bodyLimit: {
    name: 'PTP_HTTP_BODY_LIMIT',
    type: 'integer',
    default: 4 * 1024 * 1024,
    min: 1024,
    doc: 'Largest request body in bytes.',
  },
  maxStreams: {
    name: 'PTP_MAX_STREAMS',
    type: 'integer',
    default: 64,
    min: 1,
    doc: 'Sequences generated at once; a request counts `n` for each of its prompts. Further requests get 429.',
  },
  apiKeys: {
    name: 'PTP_API_KEYS_FILE',
    type: 'string',
    default: '',
    doc: 'JSON file of the API keys that may be used, with their limits (docs/api.md); empty for a server that asks for none.',
  },
  corsOrigins: {
    name: 'PTP_CORS_ORIGINS',
    type: 'string',
    default: '',
    doc: 'Origins, with commas between them, whose pages may call the API from a browser, or `*` for all; empty for none but this server.',
  },
  tracesKept: {
    name: 'PTP_TRACES_KEPT',
    type: 'integer',
    default: 100,
    min: 0,
    max: 10_000,
    doc: 'Requests whose steps are kept in memory for /traces, the last ones; 0 for none.',
  },
  stallMillis: stallSetting,
} as const satisfies SettingsTable;

export type HttpSettings = SettingsOf<typeof httpSettings>;

/** All settings of the gateway. */
export const gatewaySettings = {
  ...sharedSettings,
  ...httpSettings,
  ...tlsSettings,
  models: serviceSettings.models,
  draftModel: draftModelSetting,
  drainSeconds: serviceSettings.drainSeconds,
  verifier: {
    name: 'PTP_VERIFIER_ADDRESS',
    type: 'addresses',
    default: '127.0.0.1:7102',
    doc: 'Where the verifiers are: new streams go to the least busy one, and streams of a lost one go on at another.',
  },
  drafter: {
    name: 'PTP_DRAFTER_ADDRESS',
    type: 'addresses',
    default: '127.0.0.1:7101',
    doc: 'Where the drafters are; while nobody answers there, decoding is plain.',
  },
  draftTimeoutMillis: {
    name: 'PTP_DRAFT_TIMEOUT_MILLIS',
    type: 'integer',
    default: 500,
    min: 1,
    max: 60_000,
    doc: 'Milliseconds that a draft may take before the stream goes on without a drafter.',
  },
  verifyTimeoutMillis: {
    name: 'PTP_VERIFY_TIMEOUT_MILLIS',
    type: 'integer',
    default: 60_000,
    min: 1,
    max: 3_600_000,
    doc: 'Milliseconds after which a verifier that has not answered is taken for lost.',
  },
  recoverySeconds: {
    name: 'PTP_RECOVERY_SECONDS',
    type: 'number',
    default: 30,
    min: 0,
    max: 3600,
    doc: 'How long a stream that has lost its verifier waits for another one, or for the same one to come back.',
  },
  draftLength: {
    name: 'PTP_DRAFT_LENGTH',
    type: 'integer',
    default: 8,
    min: 1,
    max: LONGEST_DRAFT,
    doc: 'Longest block of drafted tokens that the target verifies in one step; how many pay is measured.',
  },
  draftAhead: {
    name: 'PTP_DRAFT_AHEAD',
    type: 'integer',
    default: 4,
    min: 0,
    max: 64,
    doc: 'Steps that may be sent to the verifier before the outcome of the step before them is known, for the one that a drafter which checks blocks expects; 0 for none. Over a slow network more of them are in flight.',
  },
  draftMode: {
    name: 'PTP_DRAFT_MODE',
    type: 'enum',
    values: DRAFT_MODES,
    default: 'auto',
    doc: 'How steps draft: while the block before is verified, before it, or not at all; `auto` measures which is fastest.',
  },
  promptLookup: {
    name: 'PTP_PROMPT_LOOKUP',
    type: 'boolean',
    default: true,
    doc: 'Whether tokens that repeat the text so far are proposed where the drafter has nothing better.',
  },
  draftBudget: {
    name: 'PTP_DRAFT_BUDGET',
    type: 'integer',
    default: 16,
    min: 1,
    max: 1024,
    doc: 'Tokens of one draft call over all its branches.',
  },
} as const satisfies SettingsTable;
