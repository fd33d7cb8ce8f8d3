import { z } from 'zod';
import { parsedText } from '../http/nesting.ts';
import { object, refuse, text } from '../validation.ts';

/** A function call that the assistant made. */
export interface ToolCall {
  readonly id: string;
  readonly name: string;
  readonly arguments: Readonly<Record<string, unknown>>;
}

/** A message as chat templates know it. */
export interface ChatMessage {
  readonly role: 'system' | 'user' | 'assistant' | 'tool';
  readonly content: string;
  /** Of the assistant's: calls that it made. */
  readonly toolCalls?: readonly ToolCall[];
  /** Of a tool's: the call that it answers. */
  readonly toolCallId?: string;
}

const textPart = object({ type: z.literal('text', { error: '"text"' }), text });
/** A text, or parts of one. */
export const content = z.union([text, z.array(textPart, { error: 'a string or an array of text parts' })]);

const ROLES = ['system', 'developer', 'user', 'assistant', 'tool'] as const;
const roleError = 'system, developer, user, assistant or tool';
const toolCall = object({
  id: text,
  type: z.literal('function', { error: '"function"' }),
  function: object({ name: text, arguments: text }),
});
/** The chat API's `messages`. */
export const messageList = z
  .array(
    object({
      role: z.enum(ROLES, { error: roleError }),
      content: content.nullish(),
      tool_calls: z.array(toolCall, { error: 'an array of tool calls' }).nullish(),
      tool_call_id: text.nullish(),
    }),
    { error: 'a non-empty array of messages' },
  )
  .min(1, { error: 'a non-empty array of messages' });

/**
 * Messages as chat templates know them: the role developer reads as system, its older name, and text parts are joined by newlines.
 *
 * @throws PtpError `invalid_argument` naming field, limit and given value
 */
export function conversation(messages: z.infer<typeof messageList>): ChatMessage[] {
  return messages.map(({ role, content: given, tool_calls: calls, tool_call_id: toolCallId }, i) => {
    const at = `messages[${i}]`;
    if (given == null && !(role === 'assistant' && calls?.length)) {
      refuse(`${at}.content`, 'a string or an array of text parts', given);
    }
    if (calls?.length && role !== 'assistant') refuse(`${at}.tool_calls`, 'absent unless `role` is assistant', calls);
    if (role === 'tool' && toolCallId == null) refuse(`${at}.tool_call_id`, 'the id of a call', toolCallId);
    const toolCalls = calls?.map((call, n) => ({
      id: call.id,
      name: call.function.name,
      arguments: parsedArguments(call.function.arguments, `${at}.tool_calls[${n}].function.arguments`),
    }));
    return {
      role: role === 'developer' ? 'system' : role,
      content: textOf(given ?? ''),
      ...(toolCalls?.length && { toolCalls }),
      ...(toolCallId != null && { toolCallId }),
    };
  });
}

export function textOf(given: string | readonly { text: string }[]): string {
  return typeof given === 'string' ? given : given.map((part) => part.text).join('\n');
}

/** Templates write arguments as the object that they are. @throws PtpError `invalid_argument` if they are none */
export function parsedArguments(given: string, field: string): Record<string, unknown> {
  const value = parsedText(given, field, 'an object');
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  return refuse(field, 'the JSON text of an object', given);
}
