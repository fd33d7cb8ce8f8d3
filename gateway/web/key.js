import { $, input } from './dom.js';

/** Name under which the key is stored until the browser tab is closed. The pages share it. */
const STORED = 'ptp-api-key';

/** Returns the header with the API key, or no header if there is no key. @returns {Record<string, string>} */
export function authorization() {
  const key = sessionStorage.getItem(STORED);
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** Shows the field for the API key. @param {string} message the server's reason for rejecting a request */
export function requireKey(message) {
  const form = $('key-form');
  $('key-message').textContent = authorization().authorization ? message : 'This server requires an API key.';
  if (!form.hidden) return;
  form.hidden = false;
  form.scrollIntoView({ block: 'nearest' });
  input('key').focus();
}

/** Connects the field for the API key. @param {() => void} onKey called with a new key */
export function connectKey(onKey) {
  $('key-form').addEventListener('submit', (event) => {
    event.preventDefault();
    sessionStorage.setItem(STORED, input('key').value.trim());
    $('key-form').hidden = true;
    onKey();
  });
}
