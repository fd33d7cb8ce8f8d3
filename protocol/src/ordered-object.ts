/** Name in JSON text that may look like an array index, such as `"10":`. */
const INDEX_NAME = /"\d{1,10}"\s*:|\\u003\d/i;
/** String of JSON text, and a colon if the string is a name. */
const STRING = /"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?/g;

/**
 * Returns true if an object of the text may have names that JavaScript moves to the front of the object, because they
 * look like array indices.
 */
export const mayLoseOrder = (text: string): boolean => INDEX_NAME.test(text);

/** Returns valid JSON text with `_` before each name, so that no name looks like an array index. */
export const prefixNames = (text: string): string =>
  text.replace(STRING, (string, colon?: string) => (colon ? `"_${string.slice(1)}` : string));

/** Returns the object for which {@link prefixNames} was called. Its names have the order of the text. */
export function withoutPrefixes(prefixed: object): object {
  const entries = Object.entries(prefixed).map(([name, value]): [string, unknown] => [name.slice(1), value]);
  const names = entries.map(([name]) => name);
  const object = Object.fromEntries(entries);
  const isOrdered = Object.keys(object).every((name, i) => name === names[i]);
  // Object.entries and JSON.stringify list the names in this order. A copy of the object loses the order.
  return isOrdered ? object : new Proxy(object, { ownKeys: () => names });
}

/**
 * Returns true if a plain object cannot keep the name in its place: an array index moves to the front, and `__proto__`
 * sets the prototype.
 */
export const isUnsafeName = (name: string): boolean => /^\d+$/.test(name) || name === '__proto__';
