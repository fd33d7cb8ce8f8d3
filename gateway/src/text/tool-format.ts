import type { ChatMessage, FunctionTool } from './chat-message.ts';

/**
 * Parts of a call in the format that Hermes, Qwen and many other models are trained to write: a JSON object between
 * tags.
 */
export const CALL_OPEN = '<tool_call>';
export const CALL_NAME = '\n{"name": "';
export const CALL_ARGUMENTS = '", "arguments": ';
export const CALL_CLOSE = '}\n</tool_call>';

/**
 * Returns the messages with tools, calls and results written as plain text, for chat templates that do not support
 * tools.
 */
export function toolsAsText(messages: readonly ChatMessage[], tools: readonly FunctionTool[]): ChatMessage[] {
  const plain = messages.map(asText);
  if (tools.length === 0) return plain;
  const [first, ...rest] = plain;
  const instructions = toolInstructions(tools);
  return first?.role === 'system'
    ? [{ role: 'system', content: `${first.content}\n\n${instructions}` }, ...rest]
    : [{ role: 'system', content: instructions }, ...plain];
}

function asText({ role, content, reasoning, toolCalls = [] }: ChatMessage): ChatMessage {
  if (role === 'tool') return { role: 'user', content: `<tool_response>\n${content}\n</tool_response>` };
  const calls = toolCalls.map(({ name, arguments: given }) =>
    callText(name, typeof given === 'string' ? given : JSON.stringify(given)),
  );
  const text = [...(content === '' ? [] : [content]), ...calls].join('\n');
  return { role, content: text, ...(reasoning !== undefined && { reasoning }) };
}

function toolInstructions(tools: readonly FunctionTool[]): string {
  return [
    'You may call these functions to answer:',
    '<tools>',
    ...tools.map((tool) => JSON.stringify({ type: 'function', function: tool })),
    '</tools>',
    'A call is an object with name and arguments between tags:',
    callText('function name', '{ the arguments by name }'),
  ].join('\n');
}

function callText(name: string, argumentsText: string): string {
  return CALL_OPEN + CALL_NAME + name + CALL_ARGUMENTS + argumentsText + CALL_CLOSE;
}
