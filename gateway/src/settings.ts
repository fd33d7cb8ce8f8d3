import { draftModelSetting, sharedSettings } from '@ptp/service-kit/service-settings';
import { address, addresses, integer, number, oneOf, path, type SettingsTable, text } from '@ptp/service-kit/settings';

/** Drafting modes of a step (mode-selector.ts); `auto` measures which is fastest. */
export const DRAFT_MODES = ['auto', 'overlap', 'sequential', 'plain'] as const;
/** Longest block that a request may set, in tokens. */
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
    doc: 'Certificate chain (PEM) for clients of the HTTP and the gRPC API; no TLS if empty. Reloaded when the file changes.',
  },
  httpKey: {
    name: 'PTP_HTTP_TLS_KEY_FILE',
    type: path,
    default: '',
    doc: 'Private key (PEM) for PTP_HTTP_TLS_CERT_FILE.',
  },
  maxStreams: {
    name: 'PTP_MAX_STREAMS',
    type: integer(1),
    default: 64,
    doc: 'Maximum number of concurrent sequences. A request needs `n` for each prompt; if they do not fit, it gets status 429.',
  },
  apiKeys: {
    name: 'PTP_API_KEYS_FILE',
    type: path,
    default: '',
    doc: 'JSON file of the accepted API keys and their limits (docs/api.md). If empty, requests need no key.',
  },
  corsOrigins: {
    name: 'PTP_CORS_ORIGINS',
    type: text,
    default: '',
    doc: 'Comma-separated origins whose pages may call the API from a browser, or `*` for all; if empty, only this server.',
  },
  tracesKept: {
    name: 'PTP_TRACES_KEPT',
    type: integer(0, 10_000),
    default: 100,
    doc: 'Number of recent requests kept in memory for the /traces page; 0 turns it off.',
  },
  verifiers: {
    name: 'PTP_VERIFIERS',
    type: addresses,
    default: '127.0.0.1:7102',
    doc: 'Addresses of the verifiers. New streams go to the least busy one; if one is lost, its streams continue on another.',
  },
  drafters: {
    name: 'PTP_DRAFTERS',
    type: addresses,
    default: '127.0.0.1:7101',
    doc: 'Addresses of the drafters. While none is reachable, the gateway decodes without drafts.',
  },
  draftTimeoutSeconds: {
    name: 'PTP_DRAFT_TIMEOUT_SECONDS',
    type: number(0.001, 60),
    default: 0.5,
    doc: 'Time that a draft call may take before its stream continues without a drafter.',
  },
  verifyTimeoutSeconds: {
    name: 'PTP_VERIFY_TIMEOUT_SECONDS',
    type: number(0.001, 3600),
    default: 60,
    doc: 'Time after which a verifier that has not answered counts as lost.',
  },
  recoverySeconds: {
    name: 'PTP_RECOVERY_SECONDS',
    type: number(0, 3600),
    default: 30,
    doc: 'Time that a stream waits for another verifier after losing its own.',
  },
  draftLength: {
    name: 'PTP_DRAFT_LENGTH',
    type: integer(1, LONGEST_DRAFT),
    default: 8,
    doc: 'Maximum number of drafted tokens verified in one step; the gateway measures how many pay off.',
  },
  draftMode: {
    name: 'PTP_DRAFT_MODE',
    type: oneOf(...DRAFT_MODES),
    default: 'auto',
    doc: 'When to draft: while the target verifies the previous block (overlap), after it (sequential), never (plain), or whichever measures fastest (auto).',
  },
} as const satisfies SettingsTable;
