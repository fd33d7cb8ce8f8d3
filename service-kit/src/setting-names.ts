import { PtpError } from '@ptp/protocol/errors';

/** Names of the settings of all services. */
export const SETTING_NAMES = [
  'PTP_API_KEYS_FILE',
  'PTP_CONTEXT_LENGTH',
  'PTP_CORS_ORIGINS',
  'PTP_DEVICE',
  'PTP_DRAFTERS',
  'PTP_DRAFT_LENGTH',
  'PTP_DRAFT_MODE',
  'PTP_DRAFT_MODEL',
  'PTP_DRAFT_TIMEOUT_SECONDS',
  'PTP_DRAIN_SECONDS',
  'PTP_ENGINE',
  'PTP_ENGINE_THREADS',
  'PTP_GPU_LAYERS',
  'PTP_GRPC_LISTEN',
  'PTP_HTTP_TLS_CERT_FILE',
  'PTP_HTTP_TLS_KEY_FILE',
  'PTP_LISTEN',
  'PTP_LOG_LEVEL',
  'PTP_MAX_STREAMS',
  'PTP_METRICS_LISTEN',
  'PTP_MODEL',
  'PTP_PREFIX_CACHE_MB',
  'PTP_RECOVERY_SECONDS',
  'PTP_SEQUENCE_LIMIT',
  'PTP_TLS_CA_FILE',
  'PTP_TLS_CERT_FILE',
  'PTP_TLS_KEY_FILE',
  'PTP_TRACES_KEPT',
  'PTP_VERIFIERS',
  'PTP_VERIFY_TIMEOUT_SECONDS',
];

/** Variables of the command-line client, Docker Compose and the tests. */
const OTHERS = /^PTP_(URL|KEY|MODELS_FOLDER|PYTHON|CHROMIUM|FUZZ_.*)$/;
/** Variables that Kubernetes sets for a service named `ptp` or `ptp-...`. */
const KUBERNETES = /_(SERVICE_HOST|SERVICE_PORT.*|PORT|PORT_\d+_.*)$/;

const RENAMED: Readonly<Record<string, string>> = {
  PTP_MODELS: '`PTP_MODEL`',
  PTP_HTTP_ADDRESS: '`PTP_LISTEN`',
  PTP_GRPC_ADDRESS: '`PTP_GRPC_LISTEN`',
  PTP_VERIFIER_ADDRESS: '`PTP_VERIFIERS` in the gateway and `PTP_LISTEN` in the verifier',
  PTP_DRAFTER_ADDRESS: '`PTP_DRAFTERS` in the gateway and `PTP_LISTEN` in the drafter',
  PTP_METRICS_ADDRESS: '`PTP_METRICS_LISTEN`',
  PTP_VERIFY_TIMEOUT_MILLIS: '`PTP_VERIFY_TIMEOUT_SECONDS`, in seconds',
  PTP_DRAFT_TIMEOUT_MILLIS: '`PTP_DRAFT_TIMEOUT_SECONDS`, in seconds',
};

const REMOVED = [
  'PTP_BATCH_TOKENS',
  'PTP_DRAFTER_BLOCK_LIMIT',
  'PTP_DRAFTER_BUDGET_LIMIT',
  'PTP_DRAFT_AHEAD',
  'PTP_DRAFT_BUDGET',
  'PTP_HTTP_BODY_LIMIT',
  'PTP_PREFILL_CHUNK',
  'PTP_PROMPT_LOOKUP',
  'PTP_QUEUE_LIMIT',
  'PTP_STALL_MILLIS',
  'PTP_TRACE_SLOW_MILLIS',
  'PTP_VERIFIER_DRAFT_LIMIT',
];

/**
 * Checks the names of variables.
 *
 * @throws PtpError `invalid_argument` for the first variable named `PTP_...` that is not a setting; the message names the
 *   setting that replaced it, or the setting with the most similar name
 */
export function checkSettingNames(env: NodeJS.ProcessEnv): void {
  for (const name of Object.keys(env)) {
    if (!name.startsWith('PTP_') || SETTING_NAMES.includes(name) || OTHERS.test(name) || KUBERNETES.test(name))
      continue;
    throw new PtpError('invalid_argument', `\`${name}\` ${explain(name)}`, { field: name });
  }
}

function explain(name: string): string {
  if (name in RENAMED) return `was renamed: set ${RENAMED[name]}`;
  if (REMOVED.includes(name)) return 'is no longer a setting: unset it';
  const meant = nearest(name, SETTING_NAMES);
  return meant ? `is not a setting: did you mean \`${meant}\`?` : 'is not a setting: see docs/settings.md';
}

/** Returns the name that is most similar to a misspelt one, unless more than a third of the name would have to change. */
export function nearest(name: string, names: readonly string[]): string | undefined {
  const best = names.reduce((one, other) => (distance(name, other) < distance(name, one) ? other : one));
  // Two exchanged letters are two edits, even in a short name.
  return distance(name, best) <= Math.max(2, name.length / 3) ? best : undefined;
}

/** Levenshtein distance: single-character edits that turn one string into the other. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replace, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
