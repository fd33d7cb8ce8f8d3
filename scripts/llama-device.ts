/**
 * Prints as JSON what llama.cpp would use: `gpu`, its kind or false; the `names` of the GPUs; `cores`, the default
 * number of threads. The banner runs this file as a process, because the libraries of a GPU take memory.
 */
const library: string = 'node-llama-cpp'; // an optional package, whose types may be missing
const { getLlama } = await import(library);
const llama = await getLlama({ build: 'never', skipDownload: true, logLevel: 'error' });
const names = llama.gpu ? await llama.getGpuDeviceNames() : [];
console.log(JSON.stringify({ gpu: llama.gpu, names, cores: llama.cpuMathCores }));
await llama.dispose();
