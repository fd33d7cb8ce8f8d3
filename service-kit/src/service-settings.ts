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
    doc: 'Maximum number of tokens of a sequence, prompt included; must be equal in all services. With 0, the model decides, but for a GGUF file at most 8192, because llama.cpp allocates the KV caches of all sequences at the start.',
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
  doc: 'Smaller model with the same tokenizer as the target: a folder or a GGUF file. It replaces the drafter of the model folder, and drafts one token at a time.',
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
    doc: 'Number of CPU threads for one run of a model. With 0, llama.cpp uses one per physical core and ONNX Runtime a single one. llama.cpp becomes slow if other processes need the same cores: leave them one.',
  },
  gpuLayers: {
    name: 'PTP_GPU_LAYERS',
    type: layers,
    default: 'auto',
    doc: 'Number of layers of a GGUF model that run on the GPU; auto puts as many there as fit, 0 uses the CPU only.',
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
    doc: 'Memory for the KV caches of finished sequences, in MB (10^6 bytes). Prompts that share a prefix with a finished sequence start faster. With 0, response times reveal nothing about the prompts of other clients.',
  },
  sequences: {
    name: 'PTP_SEQUENCE_LIMIT',
    type: integer(0, 65536),
    default: 0,
    doc: 'Maximum number of open sequences; further sequences are rejected with RESOURCE_EXHAUSTED. With 0, 256; but for a GGUF file 1 to 8, depending on memory, because llama.cpp allocates the KV cache of each at the start (docs/engines.md).',
  },
} as const satisfies SettingsTable;
