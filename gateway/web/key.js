import { $, input } from './dom.js';
import { inTab, store, stored } from './storage.js';

/** Name under which the pages share the key. */
const STORED = 'ptp-api-key';

/** Key for browsers that forbid storage, kept until the page is closed. @type {string | undefined} */
let entered;

/** Returns the header with the API key, or no header if there is no key. @returns {Record<string, string>} */
export function authorization() {
  const key = entered ?? stored(STORED, inTab);
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
    entered = input('key').value.trim();
    store(STORED, entered, inTab);
    $('key-form').hidden = true;
    onKey();
  });
}
