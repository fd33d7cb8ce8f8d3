// Plain JavaScript, because with-install.mjs runs on any Node from version 20, and images run this file directly:
//
//   node scripts/prune-native-files.mjs node_modules
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';

/**
 * Deletes files that npm installs and no process reads: ONNX Runtime's libraries for other systems, and the C++ headers
 * and manuals of the Node packages.
 *
 * @param {string} modules path of node_modules
 */
export function pruneNativeFiles(modules) {
  const own = join(process.platform, process.arch);
  const libraries = join(modules, 'onnxruntime-node', 'bin', 'napi-v6');
  for (const platform of list(libraries)) {
    for (const arch of list(join(libraries, platform))) {
      if (join(platform, arch) !== own) rmSync(join(libraries, platform, arch), { recursive: true });
    }
  }
  for (const name of list(modules).filter((each) => /^node-(darwin|linux|win)-/.test(each))) {
    for (const folder of ['include', 'share']) rmSync(join(modules, name, folder), { recursive: true, force: true });
  }
}

/** @returns {string[]} the names of the files in a folder, or an empty list if the folder is missing */
function list(folder) {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

if (process.argv[1]?.endsWith('prune-native-files.mjs')) pruneNativeFiles(process.argv[2] ?? 'node_modules');
