import { addresses, integer, layers, number, oneOf, path, type Setting, type SettingsTable } from './settings.ts';
import { tlsSettings } from './tls-settings.ts';

/** Settings of every service. */
export const sharedSettings = {
  model: {
    name: 'PTP_MODEL',
    type: path,
    default: 'models/default',
    doc: 'The model: a folder with manifest, tokenizer and ONNX graphs of target and drafter, or a GGUF file, which llama.cpp runs (docs/engines.md).',
  },
  contextLength: {
    name: 'PTP_CONTEXT_LENGTH',
    type: integer(0, 16777216),
    default: 0,
    doc: 'Maximum number of tokens in a sequence, prompt included. Must be equal in all services. 0 means the maximum of the model, but at most 8192 for a GGUF file, because llama.cpp allocates the KV caches of all sequences at the start.',
  },
  logLevel: {
    name: 'PTP_LOG_LEVEL',
    type: oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'),
    default: 'info',
    doc: 'Lowest severity of log records to write.',
  },
  drainSeconds: {
    name: 'PTP_DRAIN_SECONDS',
    type: number(0, 3600),
    default: 10,
    doc: 'Time for open streams to finish after SIGTERM.',
  },
  ...tlsSettings,
} as const satisfies SettingsTable;

/** Setting of the drafter and of the gateway, because the gateway must know whether a drafter exists. */
export const draftModelSetting = {
  name: 'PTP_DRAFT_MODEL',
  type: path,
  default: '',
  doc: 'Smaller model with the same tokenizer as the target: a folder or a GGUF file. It is used instead of the drafter in the model folder, and drafts one token at a time.',
} as const satisfies Setting;

/** Settings of drafter and verifier. */
export const serviceSettings = {
  ...sharedSettings,
  metrics: {
    name: 'PTP_METRICS_LISTEN',
    type: addresses,
    default: '',
    doc: 'Addresses at which the drafter and the verifier serve /metrics; without an address, they do not. Under `npm start` the verifier uses the given addresses and the drafter the next port. The gateway serves /metrics with its API.',
  },
  threads: {
    name: 'PTP_ENGINE_THREADS',
    type: integer(0, 256),
    default: 0,
    doc: 'Number of CPU threads for one run of a model. 0 means one thread per physical core for llama.cpp, and a single thread for ONNX Runtime. llama.cpp slows down if other processes compete for its cores, so leave at least one core free.',
  },
  gpuLayers: {
    name: 'PTP_GPU_LAYERS',
    type: layers,
    default: 'auto',
    doc: 'Number of layers of a GGUF model that run on the GPU; `auto` means as many as fit in its memory; 0 means none.',
  },
  batchTokens: {
    name: 'PTP_BATCH_TOKENS',
    type: integer(2, 16384),
    default: 192,
    doc: 'Maximum number of tokens in one run, summed over the sequences of the batch.',
  },
  prefixCacheMegabytes: {
    name: 'PTP_PREFIX_CACHE_MB',
    type: integer(0, 1048576),
    default: 256,
    doc: 'Memory for the KV caches of finished sequences, in MB (10^6 bytes). Prompts that share a prefix with a finished sequence start faster. Response times can therefore reveal whether another client sent a similar prompt; 0 turns the cache off and prevents this.',
  },
  sequences: {
    name: 'PTP_SEQUENCE_LIMIT',
    type: integer(0, 65536),
    default: 0,
    doc: 'Maximum number of open sequences. Further sequences are rejected with RESOURCE_EXHAUSTED. 0 means 256, or for a GGUF file 1 to 8 depending on memory, because llama.cpp allocates a KV cache for each sequence at the start (docs/engines.md).',
  },
} as const satisfies SettingsTable;
