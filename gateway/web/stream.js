/**
 * @typedef {{ id: number, text: string, source: string }} Token
 * @typedef {{ step: number, mode: string, source: string, drafted: number, accepted: number, ahead_us: number, step_us: number, verify_us: number, draft_us: number,
 *   redraft_us: number, tokens: Token[], rejected: { id: number, text: string }[] }} StepTrace
 */

/**
 * Streams a completion; calls `onStep` with each step's trace and the text that came with it.
 *
 * @param {object} body request body for /v1/completions
 * @param {AbortSignal} signal
 * @param {(trace: StepTrace | undefined, text: string) => void} onStep
 * @throws {Error} with the server's message
 */
export async function complete(body, signal, onStep) {
  const response = await fetch('v1/completions', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'default', stream: true, ...body }),
    signal,
  });
  if (!response.ok || !response.body) throw new Error(await messageOf(response));
  for await (const data of events(response.body)) {
    if (data === '[DONE]') return;
    const event = JSON.parse(data);
    if (event.error) throw new Error(event.error.message);
    onStep(event.ptp, event.choices[0]?.text ?? '');
  }
  throw new Error('The connection closed before the answer was complete. Try again.');
}

/** @param {Response} response */
async function messageOf(response) {
  const body = await response.json().catch(() => undefined);
  return body?.error?.message ?? `The server returned status ${response.status}.`;
}

/**
 * Parses server-sent events and yields their data.
 *
 * @param {ReadableStream<Uint8Array>} body
 */
async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + decoder.decode(value, { stream: true })).split('\n\n');
      rest = parts.pop() ?? '';
      for (const part of parts) if (part.startsWith('data: ')) yield part.slice('data: '.length);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
