import { chatLogprobs, type TokenLogprob } from './logprobs.ts';
import type { Format } from './stream.ts';
import { type CallPiece, ToolCallReader } from './tool-calls.ts';

/**
 * How the chat API writes an answer (https://platform.openai.com/docs/api-reference/chat).
 *
 * @param mayCall whether calls of tools are to be read out of the text
 */
export function chatFormat(mayCall: boolean): Format {
  const readers = new Map<number, ToolCallReader>();
  const readerOf = (index: number): ToolCallReader | undefined => {
    if (mayCall && !readers.has(index)) readers.set(index, new ToolCallReader());
    return readers.get(index);
  };
  const finishOf = (index: number, finish: string) =>
    finish === 'stop' && (readers.get(index)?.calls ?? 0) > 0 ? 'tool_calls' : finish;
  return {
    idPrefix: 'chatcmpl-',
    object: 'chat.completion',
    chunkObject: 'chat.completion.chunk',
    first: (index) => chunk(index, { role: 'assistant', content: '', refusal: null }),
    piece(index, text, tokens) {
      const reader = readerOf(index);
      if (!reader) return chunk(index, { content: text }, null, tokens);
      const { text: content, calls } = reader.push(text);
      const called = calls.length > 0 && { tool_calls: calls.map(callDelta) };
      return chunk(index, { ...(content !== '' && { content }), ...called }, null, tokens);
    },
    last(index, finish) {
      const rest = readers.get(index)?.end() ?? '';
      return chunk(index, rest === '' ? {} : { content: rest }, finishOf(index, finish));
    },
    whole(index, text, finish, tokens) {
      const message = messageOf(text, readerOf(index));
      return { index, message, logprobs: chatLogprobs(tokens), finish_reason: finishOf(index, finish) };
    },
  };
}

function messageOf(text: string, reader: ToolCallReader | undefined): object {
  if (!reader) return { role: 'assistant', content: text, refusal: null };
  const said = reader.push(text);
  const content = said.text + reader.end();
  const calls = joined(said.calls);
  const called = calls.length > 0 && { tool_calls: calls.map(callEntry) };
  return { role: 'assistant', content: called && content === '' ? null : content, refusal: null, ...called };
}

/** Calls with all that their pieces say. */
function joined(pieces: readonly CallPiece[]): Required<Omit<CallPiece, 'index'>>[] {
  const calls: { id: string; name: string; arguments: string }[] = [];
  for (const { id, name, arguments: given } of pieces) {
    const call = calls.at(-1);
    if (id !== undefined) calls.push({ id, name: name ?? '', arguments: given });
    else if (call) call.arguments += given;
  }
  return calls;
}

function callDelta({ index, id, name, arguments: given }: CallPiece): object {
  const begun = id === undefined ? {} : { id, type: 'function' };
  return { index, ...begun, function: { ...(name !== undefined && { name }), arguments: given } };
}

function callEntry({ id, name, arguments: given }: { id: string; name: string; arguments: string }): object {
  return { id, type: 'function', function: { name, arguments: given } };
}

function chunk(index: number, delta: object, finish: string | null = null, tokens?: readonly TokenLogprob[]): object {
  return { index, delta, logprobs: chatLogprobs(tokens), finish_reason: finish };
}
