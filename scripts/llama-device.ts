import { defaultThreads, startLlama } from '@ptp/service-kit/llama-cpp';

/**
 * Prints as JSON the devices that llama.cpp would use: `gpu` (the kind of GPU, or false), `names` (the names of the
 * GPUs) and `threads` (the default number of threads). The banner runs this file as a process, because a GPU's libraries
 * use memory.
 */
const llama = await startLlama({ logLevel: 'error' });
const names = llama.gpu ? await llama.getGpuDeviceNames() : [];
console.log(JSON.stringify({ gpu: llama.gpu, names, threads: defaultThreads(llama) }));
await llama.dispose();
