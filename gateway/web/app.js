import { ask } from './api.js';
import { stopChat } from './chat.js';
import { nameDrafter, stopCompletion } from './completion.js';
import { $, input, messageOf } from './dom.js';
import { connectKey } from './key.js';
import { showSettings } from './settings.js';

/** Time in milliseconds between attempts to reach the server. */
const RETRY = 3000;

const ENGINES = /** @type {Record<string, string>} */ ({
  onnx: 'ONNX Runtime',
  'llama-cpp': 'llama.cpp',
  torch: 'PyTorch',
  sglang: 'SGLang',
});

/** Shows which model the server has. Tries again until the server responds. */
async function describeModel() {
  try {
    const { data } = await (await ask('v1/models')).json();
    show(data[0]);
  } catch (error) {
    // The key form explains what is missing, and the reader decides when to try again.
    if (!$('key-form').hidden) return void $('model').replaceChildren();
    $('model').textContent = messageOf(error);
    setTimeout(describeModel, RETRY);
  }
}

/**
 * @param {{ id: string, max_model_len: number, ptp: { engine: string, quantization?: string, drafter: boolean,
 *   chat_template: boolean } }} model
 */
function show({ id, max_model_len: length, ptp }) {
  $('model').textContent = `Serving ${id}`;
  const facts = [
    `context of ${length.toLocaleString('en')} tokens`,
    [ENGINES[ptp.engine] ?? ptp.engine, ptp.quantization].filter(Boolean).join(', '),
    ptp.drafter ? 'with a drafter' : 'no drafter, drafts from prompt lookup',
  ];
  $('facts').textContent = facts.map((fact) => fact && ` · ${fact}`).join('');
  input('max_tokens').max = String(length - 1);
  nameDrafter(ptp.drafter);
  $('tabs').hidden = !ptp.chat_template;
  chats = ptp.chat_template;
  showTab();
}

/** True if the model was trained for conversations. */
let chats = false;

/** Shows the tab that the address names. Models for conversations start with the chat. */
function showTab() {
  const tab = chats && location.hash !== '#complete' ? 'chat' : 'completion';
  $('chat-tab').hidden = tab !== 'chat';
  $('completion-tab').hidden = tab !== 'completion';
  for (const link of $('tabs').querySelectorAll('a')) {
    if (link.hash === (tab === 'chat' ? '#chat' : '#complete')) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  $(`${tab}-tab`).querySelector('.settings-slot')?.append($('settings'));
  showSettings(tab);
  openSettings(tab);
}

/** Opens the settings where they leave enough room for the output. @param {string} tab */
function openSettings(tab) {
  const isWide = matchMedia('(min-width: 40rem)').matches;
  /** @type {HTMLDetailsElement} */ ($('settings')).open = isWide && tab === 'completion';
}

document.addEventListener('keydown', (event) => {
  // The dialog closes on Escape, and an input method ends its composition.
  if (event.isComposing || document.querySelector('dialog[open]')) return;
  if (event.key === 'Escape') {
    stopCompletion();
    stopChat();
  }
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    const form = $('chat-tab').hidden ? 'form' : 'composer';
    /** @type {HTMLFormElement} */ ($(form)).requestSubmit();
  }
});
addEventListener('hashchange', showTab);

showSettings('completion');
openSettings('completion');
connectKey(describeModel);
describeModel();
