import { isLongNumber } from '@ptp/protocol/long-number';
import { invalidField } from '@ptp/protocol/validation';
import { z } from 'zod';
import { parseJsonText } from '../http/json.ts';
import type { ChatMessage, ToolCall } from '../text/chat-message.ts';
import { boolean, object, text } from '../validation.ts';

const textPart = object({ type: z.literal('text', { error: '"text"' }), text });
/** Content of a message: a string, or an array of text parts. */
export const content = z.union([text, z.array(textPart, { error: 'a string or an array of text parts' })]);

const ROLES = ['system', 'developer', 'user', 'assistant', 'tool'] as const;
const listError = 'a non-empty array of messages';
const toolCall = object({
  id: text,
  type: z.literal('function', { error: '"function"' }),
  function: object({ name: text, arguments: text }),
});
/** `messages` of the chat API. */
export const messageList = z
  .array(
    object({
      role: z.enum(ROLES, { error: 'system, developer, user, assistant or tool' }),
      content: content.nullish(),
      reasoning_content: text.nullish(),
      tool_calls: z.array(toolCall, { error: 'an array of tool calls' }).nullish(),
      tool_call_id: text.nullish(),
    }),
    { error: listError },
  )
  .min(1, { error: listError });

/** Fields that determine the end of the prompt, with the same names as in vLLM and transformers. */
export const promptEnd = {
  /** False to omit the header of the answer from the prompt. */
  add_generation_prompt: boolean.nullish(),
  /** True to continue the last message, which must be the assistant's. */
  continue_final_message: boolean.nullish(),
};

/**
 * Validates the fields that determine the end of the prompt.
 *
 * @throws PtpError `invalid_argument`, naming field, limit and value
 */
export function promptEndOf(
  fields: z.infer<z.ZodObject<typeof promptEnd>>,
  messages: readonly ChatMessage[],
): { addGenerationPrompt: boolean; continuesLast: boolean } {
  const { add_generation_prompt: adds, continue_final_message: continues } = fields;
  const last = messages.at(-1);
  if (continues && adds) throw invalidField('add_generation_prompt', 'false with `continue_final_message`', adds);
  if (continues && (last?.role !== 'assistant' || last.toolCalls)) {
    throw invalidField(
      'continue_final_message',
      "false unless the last message is the assistant's and has no calls",
      true,
    );
  }
  return { addGenerationPrompt: adds ?? true, continuesLast: continues ?? false };
}

/** Variables of the chat template, with the same name as in vLLM and llama.cpp. */
export const templateVariables = z.record(z.string(), z.unknown(), { error: 'an object' }).nullish();

/**
 * Converts messages to the form that chat templates expect: `developer` becomes `system`, and text parts are joined by
 * newlines.
 *
 * @throws PtpError `invalid_argument`, naming field, limit and value
 */
export function conversation(messages: z.infer<typeof messageList>): ChatMessage[] {
  return messages.map(({ role, content, reasoning_content: reasoning, ...message }, i) => {
    const { tool_calls: calls, tool_call_id: toolCallId } = message;
    const at = `messages[${i}]`;
    if (content == null && !(role === 'assistant' && calls?.length)) {
      throw invalidField(`${at}.content`, 'a string or an array of text parts', content);
    }
    if (calls?.length && role !== 'assistant') {
      throw invalidField(`${at}.tool_calls`, 'absent unless `role` is assistant', calls);
    }
    if (role === 'tool' && toolCallId == null)
      throw invalidField(`${at}.tool_call_id`, 'the id of a tool call', toolCallId);
    const toolCalls = calls?.map((call, n) => ({
      id: call.id,
      name: call.function.name,
      arguments: parseArguments(call.function.arguments, `${at}.tool_calls[${n}].function.arguments`),
    }));
    return {
      role: templateRole(role),
      content: joinText(content ?? ''),
      ...(reasoning != null && { reasoning }),
      ...(toolCalls?.length && { toolCalls }),
      ...(toolCallId != null && { toolCallId }),
    };
  });
}

/** Returns the role for chat templates, which know `developer` as `system`. */
export function templateRole<Role extends string>(role: Role): Exclude<Role, 'developer'> | 'system' {
  return role === 'developer' ? 'system' : (role as Exclude<Role, 'developer'>);
}

export function joinText(content: string | readonly { text: string }[]): string {
  return typeof content === 'string' ? content : content.map((part) => part.text).join('\n');
}

/**
 * Returns the arguments of a call in the form that chat templates expect. Text that is not JSON stays text, because a
 * call that was cut off at the token limit may be part of a conversation.
 *
 * @throws PtpError `invalid_argument` if the text is JSON, but not an object, or nested too deep
 */
export function parseArguments(argumentsText: string, field: string): ToolCall['arguments'] {
  if (argumentsText.trim() === '') return {};
  const value = parseJsonText(argumentsText, field);
  if (value === undefined) return argumentsText;
  if (typeof value === 'object' && value !== null && !Array.isArray(value) && !isLongNumber(value)) {
    return value as Record<string, unknown>;
  }
  throw invalidField(field, 'the JSON text of an object', argumentsText);
}
