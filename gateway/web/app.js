import { ask } from './api.js';
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

/** @param {{ id: string, max_model_len: number, ptp: { engine: string, quantization?: string, drafter: boolean } }} model */
function show({ id, max_model_len: length, ptp }) {
  $('model').textContent = `Serving ${id}`;
  $('facts').textContent = [
    '',
    `context of ${length.toLocaleString('en')} tokens`,
    [ENGINES[ptp.engine] ?? ptp.engine, ptp.quantization].filter(Boolean).join(', '),
    ptp.drafter ? 'with a drafter' : 'no drafter, drafts from prompt lookup',
  ].join(' · ');
  input('max_tokens').max = String(length - 1);
  nameDrafter(ptp.drafter);
}

document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') stopCompletion();
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    /** @type {HTMLFormElement} */ ($('form')).requestSubmit();
  }
});

// On a phone, open settings would push the output far down.
/** @type {HTMLDetailsElement} */ ($('settings')).open = matchMedia('(min-width: 40rem)').matches;
showSettings('completion');
connectKey(describeModel);
describeModel();
