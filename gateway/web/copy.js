/** Time in milliseconds for which a button confirms that it has copied a text. */
const CONFIRMED = 1500;

/**
 * Makes a button copy a text.
 *
 * @param {HTMLElement} button
 * @param {() => string} textOf
 */
export function copyOnClick(button, textOf) {
  const name = button.textContent;
  button.addEventListener('click', async () => {
    button.textContent = (await copied(textOf())) ? 'Copied' : 'Not copied';
    setTimeout(() => {
      button.textContent = name;
    }, CONFIRMED);
  });
}

/** Copies a text to the clipboard. @param {string} text @returns {Promise<boolean>} false if the browser forbids it */
async function copied(text) {
  // Browsers have no `clipboard` on pages that a server sends over plain HTTP from another machine.
  if (!navigator.clipboard) return copiedFromField(text);
  return navigator.clipboard.writeText(text).then(
    () => true,
    () => copiedFromField(text),
  );
}

/** @param {string} text */
function copiedFromField(text) {
  const focused = document.activeElement;
  const field = document.createElement('textarea');
  field.value = text;
  field.className = 'hidden';
  // A modal dialog makes all other elements inert.
  (document.querySelector('dialog[open]') ?? document.body).append(field);
  field.select();
  const isCopied = document.execCommand('copy');
  field.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return isCopied;
}
