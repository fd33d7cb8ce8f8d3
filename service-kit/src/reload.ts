const actions = new Set<() => void>();

/**
 * Calls `action` on each SIGHUP, with which operators make a process read its files again. Without any action, SIGHUP
 * ends the process.
 */
export function onReload(action: () => void): void {
  if (actions.size === 0) process.on('SIGHUP', reloadAll);
  actions.add(action);
}

function reloadAll(): void {
  for (const action of actions) action();
}
