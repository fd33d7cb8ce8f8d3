import { invalidField } from '@ptp/protocol/validation';
import { z } from 'zod';
import { choice, type DfaState, type Expression, literal, repeat, sequence } from '../grammar/expression.ts';
import { jsonSchemaGrammar } from '../grammar/json-schema.ts';
import type { OutputConstraint } from '../grammar/types.ts';
import type { FunctionTool } from '../text/chat-message.ts';
import { CALL_ARGUMENTS, CALL_CLOSE, CALL_NAME, CALL_OPEN } from '../text/tool-format.ts';
import { object, text } from '../validation.ts';

/** Maximum number of tools in a request, as in OpenAI's API. */
const TOOL_LIMIT = 128;
const toolsError = `an array of up to ${TOOL_LIMIT} tools`;
const choiceError = 'none, auto, required or a function';
const name = z.string({ error: 'a string' }).regex(/^[\w-]{1,64}$/, '1 to 64 letters, digits, _ or -');
const isFunction = z.literal('function', { error: '"function"' });

/** Fields of a function that the model may call. */
export const toolFunction = {
  name,
  description: text.nullish(),
  parameters: z.record(z.string(), z.unknown(), { error: 'a JSON Schema of an object' }).nullish(),
};

/** Returns the schema of `tools`, where `shape` gives the fields of a tool next to its `type`. */
export const toolsOf = <Shape extends z.core.$ZodLooseShape>(shape: Shape) =>
  z.array(object({ type: isFunction, ...shape }), { error: toolsError }).max(TOOL_LIMIT, { error: toolsError });

/** Returns the schema of `tool_choice`: a mode, or an object that names a function in the fields of `shape`. */
export const toolChoiceOf = <Shape extends z.core.$ZodLooseShape>(shape: Shape) =>
  z.union([z.enum(['none', 'auto', 'required'], { error: choiceError }), object({ type: isFunction, ...shape })], {
    error: choiceError,
  });

/** `tools` of the chat API. */
export const tools = toolsOf({ function: object(toolFunction) });
/** `tool_choice` of the chat API. */
export const toolChoice = toolChoiceOf({ function: object({ name }) });

/** Tools that an answer may call. */
export interface ToolUse {
  readonly tools: readonly FunctionTool[];
  /**
   * Tool choice: `auto` allows calls, `required` forces at least one call, and a name forces one call of the tool with
   * this name.
   */
  readonly choice: 'auto' | 'required' | { readonly name: string };
  /** True if the answer may contain more than one call. */
  readonly parallel: boolean;
}

/**
 * Combines a request's tools, its tool choice (default `auto`) and `parallel_tool_calls` (default true).
 *
 * @returns undefined if the answer may not call any tool
 * @throws PtpError `invalid_argument`, naming the field
 */
export function toolUseOf(
  tools: readonly FunctionTool[] | undefined,
  wanted: ToolUse['choice'] | 'none' | null | undefined,
  parallel: boolean | null | undefined,
): ToolUse | undefined {
  const choice = wanted ?? 'auto';
  if (!tools?.length) {
    if (choice === 'auto' || choice === 'none') return undefined;
    throw invalidField('tool_choice', 'none or auto without `tools`', wanted);
  }
  const names = tools.map(({ name }) => name);
  const duplicate = names.find((name, i) => names.indexOf(name) < i);
  if (duplicate !== undefined) throw invalidField('tools', 'functions of different names', duplicate);
  return choice === 'none' ? undefined : { tools, choice, parallel: parallel ?? true };
}

/**
 * Returns the constraint on an answer: the tool grammar if it may contain calls, otherwise `format`. From the opening
 * tag of a call on, a grammar ensures that the call names a tool of the request and that the arguments satisfy the
 * tool's schema.
 *
 * @param fieldOf function that returns the request field with the parameters of tool i, for errors
 * @throws PtpError `invalid_argument` if both format and tools would constrain the answer, or for an invalid tool
 */
export function withToolConstraint(
  format: OutputConstraint | undefined,
  use: ToolUse | undefined,
  fieldOf: (index: number) => string,
): OutputConstraint | undefined {
  if (!use) return format;
  if (format) throw invalidField('tools', 'absent with a response format, unless `tool_choice` is none', 'both');
  return { grammar: toolGrammar(use, fieldOf), key: JSON.stringify(use) };
}

function toolGrammar({ tools, choice: wanted, parallel }: ToolUse, fieldOf: (index: number) => string): Expression {
  const bodies = tools.map((tool, i) => callBody(tool, fieldOf(i)));
  if (typeof wanted === 'object') {
    const body = bodies[tools.findIndex(({ name }) => name === wanted.name)];
    if (!body) throw invalidField('tool_choice', 'the name of a tool of the request', wanted.name);
    return sequence(literal(CALL_OPEN), body);
  }
  const body = choice(...bodies);
  const calls = parallel ? sequence(body, repeat(sequence(literal(`\n${CALL_OPEN}`), body))) : body;
  if (wanted === 'required') return sequence(literal(CALL_OPEN), calls);
  return choice(textWithout(CALL_OPEN), sequence(textUpTo(CALL_OPEN), calls));
}

/** Returns the grammar of a call after its opening tag. */
function callBody({ name, parameters }: FunctionTool, field: string): Expression {
  if (parameters && parameters.type !== 'object') throw invalidField(`${field}.type`, '"object"', parameters.type);
  const hasProperties = parameters && Object.keys(parameters.properties ?? {}).length > 0;
  const values =
    hasProperties || parameters?.additionalProperties ? jsonSchemaGrammar(parameters, field) : literal('{}');
  return sequence(literal(CALL_NAME + name + CALL_ARGUMENTS), values, literal(CALL_CLOSE));
}

/** Matches any text that does not contain the mark. */
const textWithout = (mark: string): DfaState => markDfa(mark, true);
/** Matches any text that ends with the mark and does not contain it earlier. */
const textUpTo = (mark: string): DfaState => markDfa(mark, false);

/** Knuth-Morris-Pratt automaton over bytes: in state i, the last i bytes read are the first i bytes of the mark. */
function markDfa(mark: string, without: boolean): DfaState {
  const pattern = [...Buffer.from(mark)];
  const states = pattern.map(
    (_, matched): DfaState => ({ kind: 'dfa', accepting: without, next: (byte) => after(matched, byte) }),
  );
  const end: DfaState = { kind: 'dfa', accepting: true, next: () => undefined };
  return states[0] as DfaState;

  function after(matched: number, byte: number): DfaState | undefined {
    const read = [...pattern.slice(0, matched), byte];
    if (read.length === pattern.length && byte === pattern.at(-1)) return without ? undefined : end;
    let length = Math.min(read.length, pattern.length - 1);
    while (length > 0 && !read.slice(-length).every((each, i) => each === pattern[i])) length--;
    return states[length];
  }
}
