import { readdir, readFile, readlink } from 'node:fs/promises';
import { cpus } from 'node:os';
import { basename, join } from 'node:path';

/** PCI ids of vendors. */
const VENDORS: Readonly<Record<string, string>> = { '0x1002': 'AMD', '0x10de': 'NVIDIA', '0x8086': 'Intel' };

/**
 * Returns names of the GPUs and drivers that WebGPU can choose, because onnxruntime-node does not report the adapter that
 * it uses. On Linux, the names come from the kernel: the model and the driver's version for NVIDIA, PCI ids and the name
 * of the driver for other vendors. The list is empty if the kernel reports no GPU. Apple's chips have one GPU. On Windows,
 * the name is unknown.
 *
 * @param root folder with `proc` and `sys`, for tests
 */
export async function gpuNames(env = process.env, platform = process.platform, root = '/'): Promise<string[]> {
  if (platform === 'darwin') return [`${cpus()[0]?.model ?? 'unknown GPU'}, Metal`];
  if (platform !== 'linux') return ['unknown GPU, Direct3D 12'];
  const chosen = env.VK_DRIVER_FILES || env.VK_ICD_FILENAMES;
  if (chosen) return chosen.split(':').map((path) => `Vulkan driver ${basename(path)}`);
  return [...(await nvidia(join(root, 'proc/driver/nvidia'))), ...(await others(join(root, 'sys/class/drm')))];
}

async function nvidia(folder: string): Promise<string[]> {
  const version = /Kernel Module[^\d]*([\d.]+)/.exec(await textOf(join(folder, 'version')))?.[1] ?? '';
  const cards = await namesIn(join(folder, 'gpus'));
  const texts = await Promise.all(cards.map((card) => textOf(join(folder, 'gpus', card, 'information'))));
  return texts.map((text) => `${/^Model:\s*(.+?)\s*$/m.exec(text)?.[1] ?? 'NVIDIA'}, driver ${version}`.trim());
}

/** Returns the names of GPUs with render nodes, except those of NVIDIA: its driver gives better names (`nvidia`). */
async function others(folder: string): Promise<string[]> {
  const nodes = (await namesIn(folder)).filter((name) => name.startsWith('renderD'));
  const found = await Promise.all(
    nodes.map(async (node) => {
      const device = join(folder, node, 'device');
      const driver = basename(await readlink(join(device, 'driver')).catch(() => 'unknown driver'));
      const [vendor, id] = [await textOf(join(device, 'vendor')), await textOf(join(device, 'device'))];
      return { driver, name: `${VENDORS[vendor.trim()] ?? vendor.trim()} ${id.trim()}, ${driver}` };
    }),
  );
  return found.filter(({ driver }) => driver !== 'nvidia').map(({ name }) => name);
}

const textOf = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');
const namesIn = (path: string): Promise<string[]> =>
  readdir(path).then(
    (names) => names.sort(),
    () => [],
  );
