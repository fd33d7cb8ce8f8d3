import { draftModelSetting, sharedSettings } from '@ptp/service-kit/service-settings';
import { address, addresses, autoOr, integer, number, oneOf, path, setting, text } from '@ptp/service-kit/settings';

/** Values of PTP_DRAFT_MODE. `auto` measures the modes and uses the fastest (mode-selector.ts). */
export const DRAFT_MODES = ['auto', 'overlap', 'sequential', 'plain'] as const;
/** Maximum number of drafted tokens per step that a request may set. */
export const LONGEST_DRAFT = 64;

/** Default of PTP_DRAFTERS if there is a drafter. */
export const LOCAL_DRAFTER = '127.0.0.1:7101';

/** Settings of the gateway. */
export const gatewaySettings = {
  ...sharedSettings,
  draftModel: draftModelSetting,
  listen: setting('PTP_LISTEN', address, '127.0.0.1:8080').doc('Address of the HTTP API.'),
  grpcListen: setting('PTP_GRPC_LISTEN', address, '127.0.0.1:8081').doc(
    'Address of the gRPC API (ptp.v1.GenerationService).',
  ),
  httpCert: setting('PTP_HTTP_TLS_CERT_FILE', path, '').doc(
    'File with the certificate chain (PEM) of the HTTP and gRPC APIs. Without this setting, these APIs do not use TLS. The file is reloaded when it changes.',
  ),
  httpKey: setting('PTP_HTTP_TLS_KEY_FILE', path, '').doc(
    'File with the private key (PEM) of the certificate in PTP_HTTP_TLS_CERT_FILE.',
  ),
  maxStreams: setting('PTP_MAX_STREAMS', integer(1), 64).doc(
    'Maximum number of sequences generated at the same time. A request counts as (number of prompts) x `n` sequences. Requests above the maximum are rejected with status 429.',
  ),
  apiKeys: setting('PTP_API_KEYS_FILE', path, '').doc(
    'JSON file with the accepted API keys and their limits (docs/api.md). Without this setting, clients need no key.',
  ),
  corsOrigins: setting('PTP_CORS_ORIGINS', text, '').doc(
    'Origins whose web pages may call the API, separated by commas; `*` allows all origins. Without this setting, only the pages of this server may call the API.',
  ),
  tracesKept: setting('PTP_TRACES_KEPT', integer(0, 10_000), 100).doc(
    'Number of recent requests kept in memory for the /traces page. 0 turns the page off.',
  ),
  verifiers: setting('PTP_VERIFIERS', addresses, '127.0.0.1:7102').doc(
    'Addresses of the verifiers, separated by commas. A new sequence goes to the least busy verifier. If a verifier fails, its sequences continue on another verifier.',
  ),
  drafters: setting('PTP_DRAFTERS', addresses, '').doc(
    'Addresses of the drafters, separated by commas. Default: 127.0.0.1:7101 if the model has a drafter or PTP_DRAFT_MODEL is set, otherwise none. While no drafter is reachable, the gateway decodes without drafts.',
  ),
  draftTimeoutSeconds: setting('PTP_DRAFT_TIMEOUT_SECONDS', autoOr(number(0.001, 60)), 'auto').doc(
    'Maximum duration of a draft call. `auto`: PTP_DRAFT_LENGTH times the mean duration of a verify call, but at least 0.5 s and at most 10 s. After a late draft, the sequence continues without drafts until the drafter answers, but for at least 0.25 s. This minimum doubles with each late draft in a row, up to 8 s.',
  ),
  verifyTimeoutSeconds: setting('PTP_VERIFY_TIMEOUT_SECONDS', number(0.001, 3600), 60).doc(
    'Time after which a verifier that does not answer counts as failed.',
  ),
  recoverySeconds: setting('PTP_RECOVERY_SECONDS', number(0, 3600), 30).doc(
    'Maximum time that a sequence waits for another verifier after its own has failed.',
  ),
  draftLength: setting('PTP_DRAFT_LENGTH', integer(1, LONGEST_DRAFT), 8).doc(
    'Maximum number of drafted tokens verified in one step. The gateway verifies fewer tokens if its measurements show that this is faster.',
  ),
  draftMode: setting('PTP_DRAFT_MODE', oneOf(...DRAFT_MODES), 'auto').doc(
    'When to draft: `overlap` drafts the next block while the current one is verified, `sequential` drafts before each verification, `plain` does not draft, and `auto` measures the modes and uses the fastest.',
  ),
};
