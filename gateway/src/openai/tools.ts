import { PtpError } from '@ptp/protocol/errors';
import { invalidField } from '@ptp/protocol/validation';
import { z } from 'zod';
import { allBytes, choice, type DfaState, type Expression, literal, repeat, sequence } from '../grammar/expression.ts';
import { jsonSchemaGrammar } from '../grammar/json-schema.ts';
import { jsonObject } from '../grammar/json-text.ts';
import type { OutputConstraint } from '../grammar/types.ts';
import type { FunctionTool } from '../text/chat-message.ts';
import { CALL_ARGUMENTS, CALL_CLOSE, CALL_NAME, CALL_OPEN } from '../text/tool-format.ts';
import { boolean, object, text } from '../validation.ts';
import type { RequestConstraint } from './output-format.ts';
import type { CallMode } from './tool-calls.ts';

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
  strict: boolean.nullish(),
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

/** A tool as requests describe it. */
interface RequestedTool extends FunctionTool {
  readonly strict?: boolean | null | undefined;
}

/** Tools that an answer may call. */
export interface ToolUse {
  readonly tools: readonly FunctionTool[];
  /** Names of the `strict` tools. If the grammar cannot follow the schema of such a tool, the request fails. */
  readonly strict?: readonly string[];
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
  given: readonly RequestedTool[] | undefined,
  wanted: ToolUse['choice'] | 'none' | null | undefined,
  parallel: boolean | null | undefined,
): ToolUse | undefined {
  const choice = wanted ?? 'auto';
  if (!given?.length) {
    if (choice === 'auto' || choice === 'none') return undefined;
    throw invalidField('tool_choice', 'none or auto without `tools`', wanted);
  }
  const names = given.map(({ name }) => name);
  const duplicate = names.find((name, i) => names.indexOf(name) < i);
  if (duplicate !== undefined) throw invalidField('tools', 'functions of different names', duplicate);
  if (choice === 'none') return undefined;
  const strict = given.flatMap((tool) => (tool.strict ? [tool.name] : []));
  const tools = given.map(({ strict: _, ...tool }) => tool);
  return { tools, strict, choice, parallel: parallel ?? true };
}

/** Returns the form of the answers to a request with these tools and this constraint on text. */
export function callMode(use: ToolUse | undefined, format: OutputConstraint | undefined): CallMode | undefined {
  if (!use) return undefined;
  if (use.choice !== 'auto') return 'forced';
  return format ? 'instead' : 'possible';
}

/**
 * Returns the constraint on an answer, see {@link callMode}. From the opening tag of a call on, a grammar ensures that
 * the call names a tool of the request and that the arguments satisfy the tool's schema. The arguments of a tool that is
 * not strict may be any object if the grammar cannot follow the schema. The constraint then has a warning.
 *
 * @param format constraint on text that has no calls
 * @param fieldOf function that returns the request field with the parameters of tool i, for errors
 * @throws PtpError `invalid_argument` for an invalid tool
 */
export function withToolConstraint(
  format: RequestConstraint | undefined,
  use: ToolUse | undefined,
  fieldOf: (index: number) => string,
): RequestConstraint | undefined {
  if (!use) return format;
  const { tools, strict = [], choice: wanted, parallel } = use;
  const given = tools.map((tool, i) => argumentsOf(tool, strict.includes(tool.name), fieldOf(i)));
  const bodies = tools.map(({ name }, i) => {
    const { grammar } = given[i] as Arguments;
    return sequence(literal(CALL_NAME + name + CALL_ARGUMENTS), grammar, literal(CALL_CLOSE));
  });
  const key = JSON.stringify([use, format?.key]);
  if (typeof wanted === 'object') {
    const index = tools.findIndex(({ name }) => name === wanted.name);
    const body = bodies[index];
    if (!body) throw invalidField('tool_choice', 'the name of a tool of the request', wanted.name);
    return { grammar: sequence(literal(CALL_OPEN), body), key, warnings: warningsOf(given.slice(index, index + 1)) };
  }
  const body = choice(...bodies);
  const calls = parallel ? sequence(body, repeat(sequence(literal(`\n${CALL_OPEN}`), body))) : body;
  const only = sequence(literal(CALL_OPEN), calls);
  const mixed = () => choice(textWithout(CALL_OPEN), sequence(textUpTo(CALL_OPEN), calls));
  const grammar = wanted === 'required' ? only : format ? choice(format.grammar, only) : mixed();
  return { grammar, key, warnings: warningsOf(given) };
}

/** Grammar of the arguments of a tool. */
interface Arguments {
  readonly grammar: Expression;
  /** Warning for the client. Set if the grammar does not enforce the schema. */
  readonly warning?: string;
}

const warningsOf = (given: readonly Arguments[]): string[] => given.flatMap(({ warning }) => warning ?? []);

/** @throws PtpError `invalid_argument` if the schema is not of an object, or if it is strict and not supported */
function argumentsOf({ name, parameters }: FunctionTool, isStrict: boolean, field: string): Arguments {
  if (!parameters) return { grammar: literal('{}') };
  const { type = 'object' } = parameters;
  if (type !== 'object') throw invalidField(`${field}.type`, '"object"', type);
  try {
    return { grammar: jsonSchemaGrammar({ ...parameters, type }, field) };
  } catch (error) {
    if (isStrict || !(error instanceof PtpError) || error.code !== 'invalid_argument') throw error;
    const warning = `The arguments of the tool \`${name}\` may be any JSON object, because its schema cannot be enforced: ${error.message}.`;
    return { grammar: jsonObject, warning };
  }
}

/** Matches any text that does not contain the mark. */
const textWithout = (mark: string): DfaState => markDfa(mark, true);
/** Matches any text that ends with the mark and does not contain it earlier. */
const textUpTo = (mark: string): DfaState => markDfa(mark, false);

/** Knuth-Morris-Pratt automaton over bytes: in state i, the last i bytes read are the first i bytes of the mark. */
function markDfa(mark: string, without: boolean): DfaState {
  const pattern = [...Buffer.from(mark)];
  const states = pattern.map(
    (_, matched): DfaState => ({
      kind: 'dfa',
      accepting: without,
      bytes: allBytes,
      next: (byte) => after(matched, byte),
      afterNonAscii: () => states[0],
    }),
  );
  const end: DfaState = { kind: 'dfa', accepting: true, bytes: [], next: () => undefined };
  return states[0] as DfaState;

  function after(matched: number, byte: number): DfaState | undefined {
    const read = [...pattern.slice(0, matched), byte];
    if (read.length === pattern.length && byte === pattern.at(-1)) return without ? undefined : end;
    let length = Math.min(read.length, pattern.length - 1);
    while (length > 0 && !read.slice(-length).every((each, i) => each === pattern[i])) length--;
    return states[length];
  }
}
