import { draftModelSetting, sharedSettings } from '@ptp/service-kit/service-settings';
import { address, addresses, integer, number, oneOf, path, type SettingsTable, text } from '@ptp/service-kit/settings';

/** Values of PTP_DRAFT_MODE. With `auto`, the gateway measures which mode is fastest (mode-selector.ts). */
export const DRAFT_MODES = ['auto', 'overlap', 'sequential', 'plain'] as const;
/** Maximum number of drafted tokens per step that a request may set. */
export const LONGEST_DRAFT = 64;

/** Settings of the gateway. */
export const gatewaySettings = {
  ...sharedSettings,
  draftModel: draftModelSetting,
  listen: { name: 'PTP_LISTEN', type: address, default: '127.0.0.1:8080', doc: 'Address of the HTTP API.' },
  grpcListen: {
    name: 'PTP_GRPC_LISTEN',
    type: address,
    default: '127.0.0.1:8081',
    doc: 'Address of the gRPC API (ptp.v1.GenerationService).',
  },
  httpCert: {
    name: 'PTP_HTTP_TLS_CERT_FILE',
    type: path,
    default: '',
    doc: 'File with the certificate chain (PEM) of the HTTP and gRPC APIs. If empty, they do not use TLS. Reloaded when it changes.',
  },
  httpKey: {
    name: 'PTP_HTTP_TLS_KEY_FILE',
    type: path,
    default: '',
    doc: 'File with the private key (PEM) of the certificate in PTP_HTTP_TLS_CERT_FILE.',
  },
  maxStreams: {
    name: 'PTP_MAX_STREAMS',
    type: integer(1),
    default: 64,
    doc: 'Maximum number of sequences generated at the same time. A request counts as one sequence per prompt and choice (`n`). Requests above the maximum get status 429.',
  },
  apiKeys: {
    name: 'PTP_API_KEYS_FILE',
    type: path,
    default: '',
    doc: 'JSON file with the accepted API keys and their limits (docs/api.md). If empty, clients need no key.',
  },
  corsOrigins: {
    name: 'PTP_CORS_ORIGINS',
    type: text,
    default: '',
    doc: 'Origins whose web pages may call the API, separated by commas; `*` allows all origins. If empty, only the pages of this server may call it.',
  },
  tracesKept: {
    name: 'PTP_TRACES_KEPT',
    type: integer(0, 10_000),
    default: 100,
    doc: 'Number of recent requests kept in memory for the /traces page. With 0, the page is off.',
  },
  verifiers: {
    name: 'PTP_VERIFIERS',
    type: addresses,
    default: '127.0.0.1:7102',
    doc: 'Addresses of the verifiers, separated by commas. A new sequence goes to the least busy verifier. If a verifier fails, its sequences continue on another one.',
  },
  drafters: {
    name: 'PTP_DRAFTERS',
    type: addresses,
    default: '127.0.0.1:7101',
    doc: 'Addresses of the drafters, separated by commas. While no drafter is reachable, the gateway decodes without drafts.',
  },
  draftTimeoutSeconds: {
    name: 'PTP_DRAFT_TIMEOUT_SECONDS',
    type: number(0.001, 60),
    default: 0.5,
    doc: 'Maximum duration of a draft call. If a call takes longer, its sequence continues without drafts until the drafter answers.',
  },
  verifyTimeoutSeconds: {
    name: 'PTP_VERIFY_TIMEOUT_SECONDS',
    type: number(0.001, 3600),
    default: 60,
    doc: 'Time after which a verifier that does not answer counts as failed.',
  },
  recoverySeconds: {
    name: 'PTP_RECOVERY_SECONDS',
    type: number(0, 3600),
    default: 30,
    doc: 'Maximum time that a sequence waits for another verifier after its own has failed.',
  },
  draftLength: {
    name: 'PTP_DRAFT_LENGTH',
    type: integer(1, LONGEST_DRAFT),
    default: 8,
    doc: 'Maximum number of drafted tokens verified in one step. The gateway uses fewer if its measurements show that this is faster.',
  },
  draftMode: {
    name: 'PTP_DRAFT_MODE',
    type: oneOf(...DRAFT_MODES),
    default: 'auto',
    doc: 'When to draft: `overlap` drafts the next block while the current one is verified, `sequential` drafts before each verification, `plain` does not draft, and `auto` uses the mode that is measured as fastest.',
  },
} as const satisfies SettingsTable;
