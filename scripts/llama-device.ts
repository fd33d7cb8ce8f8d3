import { defaultThreads, startLlama } from '@ptp/service-kit/llama-cpp';

/**
 * Prints as JSON whether llama.cpp would use a GPU (`gpu`), and its default number of threads (`threads`). `npm start`
 * runs this file as a process, because a GPU's libraries use memory.
 */
const llama = await startLlama({ logLevel: 'error' });
console.log(JSON.stringify({ gpu: llama.gpu !== false, threads: defaultThreads(llama) }));
await llama.dispose();
