import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';

// A Vulkan driver that computes on the CPU, for tests of WebGPU without a GPU.

/** SwiftShader in Debian's package chromium. */
const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';

/** Reason why WebGPU cannot be tested here, or undefined. */
export const webgpuMissing = missing();

function missing(): string | undefined {
  if (process.platform !== 'linux' || process.arch !== 'x64') return 'they run on Linux on x86-64 only';
  if (!existsSync(SWIFTSHADER)) return 'no chromium, which contains the software GPU';
  const libraries = execFileSync('/sbin/ldconfig', ['-p'], { encoding: 'utf8' });
  return libraries.includes('libvulkan.so.1') ? undefined : 'no libvulkan1';
}

/** Lets WebGPU find the software GPU. Vulkan's loader reads the environment of the process, not of the thread. */
export function useSoftwareGpu(): void {
  process.env.VK_DRIVER_FILES = SWIFTSHADER;
}

if (webgpuMissing) console.log(`tests of WebGPU skipped: ${webgpuMissing}`);
