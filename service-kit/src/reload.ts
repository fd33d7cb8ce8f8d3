const actions = new Set<() => void>();

/**
 * Calls `action` on each SIGHUP, with which operators make a process read its files again. Without any action, SIGHUP
 * drains a service.
 */
export function onReload(action: () => void): void {
  if (actions.size === 0) process.on('SIGHUP', reloadAll);
  actions.add(action);
}

/** Returns true if SIGHUP makes this process read files again. */
export function reloads(): boolean {
  return actions.size > 0;
}

function reloadAll(): void {
  for (const action of actions) action();
}
