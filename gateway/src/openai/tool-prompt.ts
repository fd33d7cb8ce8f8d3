import type { ChatMessage } from './messages.ts';
import { HEAD, MIDDLE, OPEN, TAIL, type Tool } from './tools.ts';

/** What a template that knows no tools is given in their place: Hermes' way of telling a model of them, as messages of text alone. */
export function toolsAsText(messages: readonly ChatMessage[], tools: readonly Tool[]): ChatMessage[] {
  const plain = messages.map(asText);
  if (tools.length === 0) return plain;
  const [first, ...rest] = plain;
  const told = description(tools);
  return first?.role === 'system'
    ? [{ role: 'system', content: `${first.content}\n\n${told}` }, ...rest]
    : [{ role: 'system', content: told }, ...plain];
}

function asText({ role, content, toolCalls = [] }: ChatMessage): ChatMessage {
  if (role === 'tool') return { role: 'user', content: `<tool_response>\n${content}\n</tool_response>` };
  const calls = toolCalls.map(
    ({ name, arguments: given }) => OPEN + HEAD + name + MIDDLE + JSON.stringify(given) + TAIL,
  );
  return { role, content: [...(content === '' ? [] : [content]), ...calls].join('\n') };
}

function description(tools: readonly Tool[]): string {
  return [
    'You may call these functions to answer:',
    '<tools>',
    ...tools.map((tool) => JSON.stringify({ type: 'function', function: tool })),
    '</tools>',
    'A call is an object with name and arguments between tags:',
    `${OPEN}${HEAD}function name${MIDDLE}{ the arguments by name }${TAIL}`,
  ].join('\n');
}
