import { addresses, autoOr, engineAddress, integer, layers, number, oneOf, path, setting } from './settings.ts';
import { tlsSettings } from './tls-settings.ts';

/** Settings of every service. */
export const sharedSettings = {
  model: setting('PTP_MODEL', path, 'models/default').doc(
    'The model: a folder exported by ptp-train, with manifest, tokenizer and ONNX graphs of target and drafter, a GGUF file for llama.cpp, or a Hugging Face folder, which an engine in another process runs (docs/engines.md).',
  ),
  contextLength: setting('PTP_CONTEXT_LENGTH', integer(0, 16777216), 0).doc(
    'Maximum number of tokens in a sequence, prompt included. Must be the same in all services. 0 means the maximum of the model, but at most 8192 for a GGUF file or a Hugging Face folder, whose engines allocate their KV caches at the start.',
  ),
  logLevel: setting('PTP_LOG_LEVEL', oneOf('trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'), 'info').doc(
    'Lowest severity of log records to write.',
  ),
  drainSeconds: setting('PTP_DRAIN_SECONDS', number(0, 3600), 10).doc('Time for open streams to finish after SIGTERM.'),
  ...tlsSettings,
};

/** Setting of the drafter and of the gateway, because the gateway must know whether a drafter exists. */
export const draftModelSetting = setting('PTP_DRAFT_MODEL', path, '').doc(
  'A smaller model (a folder or a GGUF file) that drafts for PTP_MODEL, one token at a time, instead of the drafter in the model folder. It must have the same tokenizer.',
);

/** Settings of drafter and verifier. */
export const serviceSettings = {
  ...sharedSettings,
  metrics: setting('PTP_METRICS_LISTEN', addresses, '').doc(
    'Addresses at which the drafter and the verifier serve /metrics, and /healthz and /readyz for probes. Without an address, neither serves them. Under `npm start`, the verifier uses the given addresses, and the drafter uses the port after each of them. The gateway serves /metrics with its API.',
  ),
  engine: setting('PTP_ENGINE', engineAddress, '').doc(
    'Address of an engine in another process, such as `ptp-engine`, which runs models on PyTorch, or for the verifier the http:// addresses of SGLang servers (docs/engines.md). Its model must be the one in PTP_MODEL. The connection to `ptp-engine` is not encrypted. By default, the service runs the model: with llama.cpp if it is a GGUF file, otherwise with ONNX Runtime.',
  ),
  threads: setting('PTP_ENGINE_THREADS', integer(0, 256), 0).doc(
    'Number of CPU threads per forward pass. 0 means one thread for ONNX Runtime. A target that extends its caches in place uses at most one thread per key/value head. For llama.cpp, it means one thread fewer than there are physical cores, because llama.cpp slows down if other processes compete for its cores. Under `npm start`, a draft model in llama.cpp gets a quarter of these threads, and the target the others.',
  ),
  gpuLayers: setting('PTP_GPU_LAYERS', layers, 'auto').doc(
    'Number of layers of a GGUF model that run on the GPU; `auto` means as many layers as fit in its memory, and 0 means none.',
  ),
  device: setting('PTP_DEVICE', oneOf('cpu', 'webgpu', 'auto'), 'cpu').doc(
    'Processor that ONNX Runtime uses for a model folder. `cpu` is the CPU, and `webgpu` is a GPU with a driver for Vulkan, Metal or Direct3D. `auto` is a GPU if WebGPU finds one, and otherwise the CPU; it ignores software adapters (docs/engines.md).',
  ),
  prefixCacheMegabytes: setting('PTP_PREFIX_CACHE_MB', autoOr(integer(0, 1048576)), 'auto').doc(
    'Memory for the KV caches of finished sequences, in MB (10^6 bytes). `auto` means room for two sequences of full length, limited to an eighth of the memory, but at least 256 MB if this fits. Prompts that share a prefix with a finished sequence start faster. Response times can therefore reveal whether another client sent a similar prompt; 0 turns the cache off and prevents this.',
  ),
  sequences: setting('PTP_SEQUENCE_LIMIT', integer(0, 65536), 0).doc(
    'Maximum number of open sequences. Further sequences are rejected with RESOURCE_EXHAUSTED. 0 means as many as fit in memory, at most 256 (docs/deploy.md), or for a GGUF file 1 to 8, because llama.cpp allocates a KV cache for each sequence at the start (docs/engines.md).',
  ),
};
