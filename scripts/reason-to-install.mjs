// Plain JavaScript, because with-install.mjs runs on any Node from version 20.

/**
 * Returns the reason why an install is needed, or undefined if the installed packages match package-lock.json.
 *
 * @param {import('./reason-to-install.d.mts').Packages} wanted packages in package-lock.json, by path
 * @param {import('./reason-to-install.d.mts').Packages | undefined} installed packages in node_modules, if it exists
 * @param {boolean} serving true if the development dependencies are not needed
 */
export function reasonToInstall(wanted, installed, serving) {
  if (!installed) return 'node_modules is missing';
  const needed = Object.entries(wanted).filter(
    ([path, { link, dev }]) => path.includes('node_modules/') && !link && !(serving && dev),
  );
  const changed = needed.find(([path, { version }]) => installed[path] && installed[path].version !== version);
  if (changed) return `${changed[0]} is at version ${installed[changed[0]]?.version} instead of ${changed[1].version}`;
  const missing = needed.filter(([path, { optional }]) => !installed[path] && !optional);
  const other = missing.find(([, { dev }]) => !dev);
  if (other) return `${other[0]} is missing`;
  return missing.length > 0 ? 'the development dependencies are missing' : undefined;
}
