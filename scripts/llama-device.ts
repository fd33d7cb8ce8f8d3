/**
 * Prints as JSON the devices that llama.cpp would use: `gpu` (the kind of GPU, or false), `names` (the names of the
 * GPUs) and `cores` (the default number of threads). The banner runs this file as a process, because a GPU's libraries
 * use memory.
 */
const library: string = 'node-llama-cpp'; // an optional package, whose types may be missing
const { getLlama } = await import(library);
const llama = await getLlama({ build: 'never', skipDownload: true, logLevel: 'error' });
const names = llama.gpu ? await llama.getGpuDeviceNames() : [];
console.log(JSON.stringify({ gpu: llama.gpu, names, cores: Math.max(1, llama.cpuMathCores - 1) }));
await llama.dispose();
