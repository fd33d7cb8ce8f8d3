import { z } from 'zod';
import { choice, type Expression, literal, type Reader, repeat, sequence } from '../grammar/expression.ts';
import type { Form } from '../grammar/grammars.ts';
import { jsonSchemaGrammar } from '../grammar/json-schema.ts';
import { object, refuse, text } from '../validation.ts';

/** Most tools of a request, as in OpenAI's API. */
export const MOST_TOOLS = 128;
const toolsError = `an array of up to ${MOST_TOOLS} tools`;
const name = z.string({ error: 'a string' }).regex(/^[\w-]{1,64}$/, '1 to 64 letters, digits, _ or -');

/** A function that the model may call. */
export const toolFunction = {
  name,
  description: text.nullish(),
  parameters: z.record(z.string(), z.unknown(), { error: 'a JSON Schema of an object' }).nullish(),
};

/** The chat API's `tools` and `tool_choice`. */
export const tools = z
  .array(object({ type: z.literal('function', { error: '"function"' }), function: object(toolFunction) }), {
    error: toolsError,
  })
  .max(MOST_TOOLS, { error: toolsError });
export const toolChoice = z.union(
  [
    z.enum(['none', 'auto', 'required'], { error: 'none, auto, required or a function' }),
    object({ type: z.literal('function', { error: '"function"' }), function: object({ name }) }),
  ],
  { error: 'none, auto, required or a function' },
);

export type Tools = z.infer<typeof tools>;
export type Tool = Tools[number]['function'];

/** @throws PtpError `invalid_argument`; undefined where no tool may be called */
export function toolUseOf(
  given: Tools | null | undefined,
  wanted: z.infer<typeof toolChoice> | null | undefined,
  parallel: boolean,
): ToolUse | undefined {
  const choice = typeof wanted === 'object' && wanted ? { name: wanted.function.name } : (wanted ?? 'auto');
  if (!given?.length) {
    if (choice === 'auto' || choice === 'none') return undefined;
    return refuse('tool_choice', 'none or auto without `tools`', wanted);
  }
  const names = given.map(({ function: { name } }) => name);
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined) refuse('tools', 'functions of different names', twice);
  return choice === 'none' ? undefined : { tools: given.map((tool) => tool.function), choice, parallel };
}

/** What of a request's tools may be called. */
export interface ToolUse {
  readonly tools: readonly Tool[];
  /** How often: perhaps, at least once; or this one, once. */
  readonly choice: 'auto' | 'required' | { readonly name: string };
  /** Whether more than one call may be made. */
  readonly parallel: boolean;
}

/**
 * Calls are written as Hermes, Qwen and many others were taught to: an object with name and arguments between tags. A grammar forces
 * this form from the opening tag on, so that every call names a function of the request and its arguments satisfy that function's schema.
 */
export const OPEN = '<tool_call>';
export const HEAD = '\n{"name": "';
export const MIDDLE = '", "arguments": ';
export const TAIL = '}\n</tool_call>';

/** @param fields how errors name the parameters of tool i */
export function toolForm(use: ToolUse, fields: (index: number) => string): Form {
  const bodies = use.tools.map((tool, i) => ({ tool, body: callBody(tool, fields(i)) }));
  const key = JSON.stringify(use);
  const { choice: wanted } = use;
  if (typeof wanted === 'object') {
    const named = bodies.find(({ tool }) => tool.name === wanted.name);
    if (!named) return refuse('tool_choice', 'the name of a tool of the request', wanted.name);
    return { grammar: sequence(literal(OPEN), named.body), key };
  }
  const body = choice(...bodies.map((each) => each.body));
  const calls = use.parallel ? sequence(body, repeat(sequence(literal(`\n${OPEN}`), body))) : body;
  if (wanted === 'required') return { grammar: sequence(literal(OPEN), calls), key };
  return { grammar: choice(textWithout(OPEN), sequence(textUpTo(OPEN), calls)), key };
}

/** A call after its opening tag. */
function callBody({ name, parameters }: Tool, field: string): Expression {
  if (parameters && parameters.type !== 'object') refuse(`${field}.type`, '"object"', parameters.type);
  const given = parameters && Object.keys(parameters.properties ?? {}).length > 0;
  const values = given || parameters?.additionalProperties ? jsonSchemaGrammar(parameters, field) : literal('{}');
  return sequence(literal(HEAD + name + MIDDLE), values, literal(TAIL));
}

/** Any text in which the mark does not stand. */
const textWithout = (mark: string): Reader => reading(mark, true);
/** Any text that ends with the mark, and in which it stands nowhere else. */
const textUpTo = (mark: string): Reader => reading(mark, false);

/** A Knuth-Morris-Pratt automaton over bytes; reader i has seen i bytes of the mark last. */
function reading(mark: string, without: boolean): Reader {
  const wanted = [...Buffer.from(mark)];
  const readers = wanted.map(
    (_, seen): Reader => ({ kind: 'reader', complete: without, next: (byte) => after(seen, byte) }),
  );
  const whole: Reader = { kind: 'reader', complete: true, next: () => undefined };
  return readers[0] as Reader;

  function after(seen: number, byte: number): Reader | undefined {
    const text = [...wanted.slice(0, seen), byte];
    if (text.length === wanted.length && byte === wanted.at(-1)) return without ? undefined : whole;
    let length = Math.min(text.length, wanted.length - 1);
    while (length > 0 && !text.slice(-length).every((each, i) => each === wanted[i])) length--;
    return readers[length];
  }
}
