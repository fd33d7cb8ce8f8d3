/** @import { Call } from './snippets.js' */
import { copyOnClick } from './copy.js';
import { $ } from './dom.js';
import { authorization } from './key.js';
import { SNIPPETS } from './snippets.js';

const dialog = /** @type {HTMLDialogElement} */ ($('code'));

/** @type {Call | undefined} */
let call;

/** Shows the code for a request. @param {Pick<Call, 'isChat' | 'body'>} request */
export function showCode(request) {
  call = { ...request, base: new URL('./', document.baseURI).href, hasKey: 'authorization' in authorization() };
  write();
  dialog.showModal();
}

function write() {
  const chosen = /** @type {HTMLInputElement | null} */ (dialog.querySelector('input:checked'));
  if (call) $('code-text').textContent = SNIPPETS[chosen?.value ?? 'curl']?.(call) ?? '';
}

dialog.addEventListener('change', write);
dialog.addEventListener('click', (event) => {
  // The dialog's content covers it, so a click on the dialog itself is one on the backdrop.
  if (event.target === dialog) dialog.close();
});
$('code-close').addEventListener('click', () => dialog.close());
copyOnClick($('code-copy'), () => $('code-text').textContent ?? '');
