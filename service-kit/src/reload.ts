const actions = new Set<() => void>();

/**
 * Adds an action for SIGHUP, with which operators make a service read its files again ({@link reload}).
 *
 * @returns a function that removes the action
 */
export function onReload(action: () => void): () => void {
  actions.add(action);
  return () => actions.delete(action);
}

/** Runs all actions. Returns false if there are none. */
export function reload(): boolean {
  for (const action of actions) action();
  return actions.size > 0;
}
