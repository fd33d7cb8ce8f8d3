import type { Setting, SettingsTable } from './settings.ts';

/** Of the drafter, and of the gateway, which has to know that there is one. */
export const draftModelSetting = {
  name: 'PTP_DRAFT_MODEL',
  type: 'string',
  default: '',
  doc: 'Folder of a whole model with the same tokenizer, usually a smaller one, that drafts token by token; empty for the drafter of PTP_MODELS.',
} as const satisfies Setting;

/** Of every server that streams. */
export const stallSetting = {
  name: 'PTP_STALL_MILLIS',
  type: 'integer',
  default: 30_000,
  min: 1,
  max: 86_400_000,
  doc: 'Milliseconds for which a client, of HTTP or gRPC, may make no room in a stream whose buffers are full, or over HTTP leave them not empty, before its work is ended. Over gRPC room comes in pieces of some 32 KB.',
} as const satisfies Setting;

/** Settings that drafter and verifier have in common. */
export const serviceSettings = {
  models: {
    name: 'PTP_MODELS',
    type: 'string',
    default: 'models/default',
    doc: 'Folder of the pair: manifest, ONNX graphs, tokenizer.',
  },
  metrics: {
    name: 'PTP_METRICS_ADDRESS',
    type: 'addresses',
    default: '',
    doc: "Where drafter and verifier serve /metrics, each its own; empty for nowhere. The gateway serves it with the API. Under `npm start` the drafter takes the port after the verifier's.",
  },
  threads: {
    name: 'PTP_ENGINE_THREADS',
    type: 'integer',
    default: 1,
    min: 1,
    max: 256,
    doc: 'Threads of the engine inside one run.',
  },
  prefillChunk: {
    name: 'PTP_PREFILL_CHUNK',
    type: 'integer',
    default: 128,
    min: 2,
    max: 4096,
    doc: "Tokens of a prompt read in one run; between two such runs other sequences' steps have their turn.",
  },
  batchTokens: {
    name: 'PTP_BATCH_TOKENS',
    type: 'integer',
    default: 192,
    min: 2,
    max: 16384,
    doc: 'Tokens in one run over all its sequences.',
  },
  prefixCacheMegabytes: {
    name: 'PTP_PREFIX_CACHE_MB',
    type: 'integer',
    default: 256,
    min: 0,
    max: 1048576,
    doc: 'Keys and values of ended sequences that are kept for prompts which begin as they do, in MB (10^6 bytes); 0 for none, as where clients must not learn what others sent.',
  },
  sequences: {
    name: 'PTP_SEQUENCE_LIMIT',
    type: 'integer',
    default: 256,
    min: 1,
    max: 65536,
    doc: 'Sequences open at once; one more is refused with RESOURCE_EXHAUSTED. Not above PTP_QUEUE_LIMIT, or steps may be.',
  },
  queue: {
    name: 'PTP_QUEUE_LIMIT',
    type: 'integer',
    default: 256,
    min: 1,
    max: 65536,
    doc: 'Runs that may wait; beyond it a step is refused with RESOURCE_EXHAUSTED.',
  },
  drainSeconds: {
    name: 'PTP_DRAIN_SECONDS',
    type: 'number',
    default: 10,
    min: 0,
    max: 3600,
    doc: 'After SIGTERM, how long open streams may go on.',
  },
  stallMillis: stallSetting,
} as const satisfies SettingsTable;
