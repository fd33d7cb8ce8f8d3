import { PtpError } from '@ptp/core/errors.ts';

type Test = (value: unknown) => boolean;

const present: Test = () => true;
const isTrue: Test = (value) => value !== false;
const filled: Test = (value) => (typeof value === 'object' ? Object.keys(value ?? {}).length > 0 : value !== '');
const not =
  (...neutral: unknown[]): Test =>
  (value) =>
    !neutral.includes(value);

/**
 * Fields that would change the answer if we knew them, each with the test whether a value (not null) asks for
 * anything. Asking is refused: ignoring it would answer another question than the client's.
 */
const unsupported: Readonly<Record<string, Test>> = {
  // Chat.
  tools: filled,
  tool_choice: not('none', 'auto'),
  functions: filled,
  function_call: not('none', 'auto'),
  response_format: (value) => (value as { type?: unknown }).type !== 'text',
  modalities: (value) => !(Array.isArray(value) && value.every((modality) => modality === 'text')),
  audio: present,
  reasoning_effort: not('none'),
  web_search_options: present,
  // Completions.
  suffix: filled,
  echo: isTrue,
  // Responses. (`prompt` is a template there.)
  previous_response_id: filled,
  conversation: present,
  background: isTrue,
  reasoning: (value) => ![undefined, null, 'none'].includes((value as { effort?: string }).effort),
  text: (value) => ((value as { format?: { type?: string } }).format?.type ?? 'text') !== 'text',
  truncation: not('disabled'),
  max_tool_calls: present,
  // Extensions of vLLM.
  structured_outputs: present,
};

/** @throws PtpError `invalid_argument` naming the first field that asks for something we do not do */
export function refuseUnsupported(body: Readonly<Record<string, unknown>>): void {
  for (const [field, asks] of Object.entries(unsupported)) {
    const value = body[field];
    if (value === undefined || value === null || !asks(value)) continue;
    throw new PtpError('invalid_argument', `\`${field}\` is not supported`, { field });
  }
}
