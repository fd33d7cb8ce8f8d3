/** Returns the element with this id. @param {string} id */
export const $ = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** Returns the input or text area with this id. @param {string} id */
export const input = (id) => /** @type {HTMLInputElement} */ ($(id));

/**
 * Creates an element.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} name
 * @param {Partial<HTMLElementTagNameMap[T]>} [properties]
 * @param {(string | Node)[]} children
 */
export function element(name, properties = {}, ...children) {
  const created = Object.assign(document.createElement(name), properties);
  created.append(...children);
  return created;
}

/**
 * Returns a function that shows a message, or an error, in the element with this id.
 *
 * @param {string} id
 */
export function statusLine(id) {
  return (/** @type {string} */ message, error = false) => {
    $(id).textContent = message;
    $(id).classList.toggle('error', error);
  };
}

/** Returns a number and its noun: 1 token, 2 tokens. @param {number} count @param {string} noun */
export const counted = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`;

/** Returns the message of an error. @param {unknown} error */
export const messageOf = (error) => (error instanceof Error ? error.message : String(error));
