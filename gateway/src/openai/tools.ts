import { invalidField } from '@ptp/protocol/validation';
import { z } from 'zod';
import { choice, type DfaState, type Expression, literal, repeat, sequence } from '../grammar/expression.ts';
import { jsonSchemaGrammar } from '../grammar/json-schema.ts';
import type { OutputConstraint } from '../grammar/types.ts';
import type { FunctionTool } from '../text/chat-message.ts';
import { CALL_ARGUMENTS, CALL_CLOSE, CALL_NAME, CALL_OPEN } from '../text/tool-format.ts';
import { object, text } from '../validation.ts';

/** Most tools of a request, as in OpenAI's API. */
export const TOOL_LIMIT = 128;
const toolsError = `an array of up to ${TOOL_LIMIT} tools`;
const choiceError = 'none, auto, required or a function';
const name = z.string({ error: 'a string' }).regex(/^[\w-]{1,64}$/, '1 to 64 letters, digits, _ or -');

export const isFunction = z.literal('function', { error: '"function"' });

/** Fields of a function that the model may call. */
export const toolFunction = {
  name,
  description: text.nullish(),
  parameters: z.record(z.string(), z.unknown(), { error: 'a JSON Schema of an object' }).nullish(),
};

/** `tools` of the chat API. */
export const tools = z
  .array(object({ type: isFunction, function: object(toolFunction) }), { error: toolsError })
  .max(TOOL_LIMIT, { error: toolsError });

/** `tool_choice`: a mode, or a function given by `shape`. */
export const toolChoiceOf = <Shape extends z.core.$ZodLooseShape>(shape: Shape) =>
  z.union([z.enum(['none', 'auto', 'required'], { error: choiceError }), object({ type: isFunction, ...shape })], {
    error: choiceError,
  });

/** `tool_choice` of the chat API. */
export const toolChoice = toolChoiceOf({ function: object({ name }) });

/** The tools that an answer may call. */
export interface ToolUse {
  readonly tools: readonly FunctionTool[];
  /** `auto` allows calls, `required` forces at least one, a name forces one call of that tool. */
  readonly choice: 'auto' | 'required' | { readonly name: string };
  /** Allows more than one call. */
  readonly parallel: boolean;
}

/**
 * @param wanted the request's tool choice; `auto` if absent
 * @returns undefined if no tool may be called
 * @throws PtpError `invalid_argument`
 */
export function toolUseOf(
  tools: readonly FunctionTool[] | null | undefined,
  wanted: ToolUse['choice'] | 'none' | null | undefined,
  parallel: boolean,
): ToolUse | undefined {
  const choice = wanted ?? 'auto';
  if (!tools?.length) {
    if (choice === 'auto' || choice === 'none') return undefined;
    throw invalidField('tool_choice', 'none or auto without `tools`', wanted);
  }
  const names = tools.map(({ name }) => name);
  const duplicate = names.find((name, i) => names.indexOf(name) < i);
  if (duplicate !== undefined) throw invalidField('tools', 'functions of different names', duplicate);
  return choice === 'none' ? undefined : { tools, choice, parallel };
}

/**
 * The constraint on an answer that may call tools. From the opening tag on, a grammar ensures that each call names a tool
 * of the request and that its arguments satisfy that tool's schema.
 *
 * @param fieldOf the request field of tool i's parameters, for errors
 */
export function toolConstraint(use: ToolUse, fieldOf: (index: number) => string): OutputConstraint {
  const { choice: wanted } = use;
  const key = JSON.stringify(use);
  const bodies = use.tools.map((tool, i) => ({ tool, body: callBody(tool, fieldOf(i)) }));
  if (typeof wanted === 'object') {
    const named = bodies.find(({ tool }) => tool.name === wanted.name);
    if (!named) throw invalidField('tool_choice', 'the name of a tool of the request', wanted.name);
    return { grammar: sequence(literal(CALL_OPEN), named.body), key };
  }
  const body = choice(...bodies.map((each) => each.body));
  const calls = use.parallel ? sequence(body, repeat(sequence(literal(`\n${CALL_OPEN}`), body))) : body;
  if (wanted === 'required') return { grammar: sequence(literal(CALL_OPEN), calls), key };
  return { grammar: choice(textWithout(CALL_OPEN), sequence(textUpTo(CALL_OPEN), calls)), key };
}

/** A call after its opening tag. */
function callBody({ name, parameters }: FunctionTool, field: string): Expression {
  if (parameters && parameters.type !== 'object') throw invalidField(`${field}.type`, '"object"', parameters.type);
  const hasProperties = parameters && Object.keys(parameters.properties ?? {}).length > 0;
  const values =
    hasProperties || parameters?.additionalProperties ? jsonSchemaGrammar(parameters, field) : literal('{}');
  return sequence(literal(CALL_NAME + name + CALL_ARGUMENTS), values, literal(CALL_CLOSE));
}

/** Any text that does not contain the mark. */
const textWithout = (mark: string): DfaState => markDfa(mark, true);
/** Any text that ends with the mark and does not contain it before. */
const textUpTo = (mark: string): DfaState => markDfa(mark, false);

/** A Knuth-Morris-Pratt automaton over bytes; in state i, the last i bytes read are the first i of the mark. */
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
