/**
 * Compares a GPU, used through WebGPU, with the CPU: the self-check, the picks, and the times to draft and to verify.
 *
 *     node bench/gpu/webgpu.ts [FOLDER]     # default: models/default; prints one line of JSON
 *
 * The machine needs the GPU's Vulkan driver and Vulkan's loader (Debian: libvulkan1). If they are not installed, unpack
 * both anywhere and set LD_LIBRARY_PATH to the folder with libvulkan.so.1 and VK_DRIVER_FILES to the driver's JSON file,
 * for NVIDIA nvidia_icd.json.
 */
import { measureDevice } from './measure-device.ts';

const dir = process.argv[2] ?? 'models/default';
const cpu = await measureDevice(dir, 'cpu');
const gpu = await measureDevice(dir, 'webgpu');
const differences = gpu.logProbabilities.map((value, i) => Math.abs(value - (cpu.logProbabilities[i] ?? Number.NaN)));
console.log(
  JSON.stringify({
    model: dir,
    equalPicks: gpu.picks.filter((pick, i) => pick === cpu.picks[i]).length,
    picks: cpu.picks.length,
    largestLogProbabilityDifference: Math.max(...differences),
    ...Object.fromEntries([cpu, gpu].map(({ picks, logProbabilities, ...report }, i) => [i ? 'gpu' : 'cpu', report])),
  }),
);
