import { defaultThreads, startLlama } from '@ptp/service-kit/llama-cpp';

/**
 * Prints JSON: `gpu` is true if llama.cpp would use a GPU, and `threads` is its default number of threads. `npm start`
 * runs this file as a separate process, because a GPU's libraries use memory.
 */
const llama = await startLlama({ logLevel: 'error' });
console.log(JSON.stringify({ gpu: llama.gpu !== false, threads: defaultThreads(llama) }));
await llama.dispose();
