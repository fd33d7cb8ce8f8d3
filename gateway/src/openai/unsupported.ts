import { PtpError } from '@ptp/protocol/errors';

type Test = (value: unknown) => boolean;

const present: Test = () => true;
const isTrue: Test = (value) => value !== false;
const filled: Test = (value) => (typeof value === 'object' ? Object.keys(value ?? {}).length > 0 : value !== '');
const not =
  (...neutral: unknown[]): Test =>
  (value) =>
    !neutral.includes(value);

/** Whether an object's field, or the value itself if it is none, is anything but neutral. */
const within =
  (field: string, ...neutral: unknown[]): Test =>
  (value) =>
    !(typeof value === 'object' && neutral.includes((value as Record<string, unknown>)[field] ?? null));

/**
 * Fields of one endpoint that would change the answer if we knew them, each with the test whether a value (not null) asks
 * for anything. Asking is refused: ignoring it would answer another question than the client's.
 */
export type Unsupported = Readonly<Record<string, Test>>;

export const inCompletions: Unsupported = { suffix: filled };

export const inChat: Unsupported = {
  functions: filled,
  function_call: not('none', 'auto'),
  modalities: (value) => !(Array.isArray(value) && value.every((modality) => modality === 'text')),
  audio: present,
  reasoning_effort: not('none'),
  web_search_options: present,
};

export const inResponses: Unsupported = {
  prompt: present,
  previous_response_id: filled,
  conversation: present,
  background: isTrue,
  reasoning: within('effort', null, 'none'),
  truncation: not('disabled'),
  max_tool_calls: present,
};

/** @throws PtpError `invalid_argument` naming the first field that asks for something we do not do */
export function refuseUnsupported(body: Readonly<Record<string, unknown>>, unsupported: Unsupported): void {
  for (const [field, asks] of Object.entries(unsupported)) {
    const value = body[field];
    if (value === undefined || value === null || !asks(value)) continue;
    throw new PtpError('invalid_argument', `\`${field}\` is not supported`, { field });
  }
}
