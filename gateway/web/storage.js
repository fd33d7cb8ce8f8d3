/** Returns the storage that lasts until the browser tab is closed. @throws {DOMException} if the browser forbids it */
export const inTab = () => sessionStorage;
/** Returns the storage that outlasts the browser tab. @throws {DOMException} if the browser forbids it */
const lasting = () => localStorage;

/**
 * Returns the value that a page has stored. Undefined if there is no value, or if the browser forbids storage.
 *
 * @param {string} name
 */
export function stored(name, storage = lasting) {
  try {
    return JSON.parse(storage().getItem(name) ?? 'null') ?? undefined;
  } catch {
    return undefined;
  }
}

/** Stores a value, if the browser allows it. @param {string} name @param {unknown} value */
export function store(name, value, storage = lasting) {
  try {
    storage().setItem(name, JSON.stringify(value));
  } catch {}
}
