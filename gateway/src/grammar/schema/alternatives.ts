import type { Decimal } from './decimal.ts';

/** Schema of the client, or its complement. Equal items are one object. */
export interface Item {
  readonly id: number;
  readonly schema: unknown;
  readonly negated: boolean;
  /** Path in the request, for errors. */
  readonly at: string;
}
/** Schemas that a value must satisfy together. The empty conjunction allows all values. */
export type Conjunction = readonly Item[];

/** Values of one type, described by constraints that must all hold. A normal form is a list of alternatives. */
export type Alternative =
  | ValuesAlternative
  | { readonly type: 'null' }
  | { readonly type: 'boolean' }
  | NumberAlternative
  | StringAlternative
  | ArrayAlternative
  | ObjectAlternative;

/** Values that the schema enumerates. */
export interface ValuesAlternative {
  readonly type: 'values';
  readonly values: readonly unknown[];
}

export interface Limit {
  readonly value: Decimal;
  /** True if the limit excludes the value itself. */
  readonly exclusive: boolean;
}

export interface NumberAlternative {
  readonly type: 'number';
  /** True if only integers are allowed. */
  readonly integer: boolean;
  readonly min: Limit | undefined;
  readonly max: Limit | undefined;
  /** Positive number that must divide every allowed number. */
  readonly multipleOf: Decimal | undefined;
}

export interface StringAlternative {
  readonly type: 'string';
  readonly min: number;
  readonly max: number;
  readonly patterns: readonly Pattern[];
  /** Strings that are not allowed. */
  readonly excluded: readonly string[];
}

/** Constraint on a string: it must match a regular expression or, if `negated` is true, it must not match. */
export interface Pattern {
  readonly source: string;
  readonly negated: boolean;
  /** True if the expression stands for a format. It may then match only the common texts of the format. */
  readonly isFormat: boolean;
  /** Path in the request, for errors. */
  readonly at: string;
}

export interface ArrayAlternative {
  readonly type: 'array';
  readonly prefix: readonly Conjunction[];
  /** Number of items in the prefix that keywords declare. Under `not`, keywords restrict items without declaring them. */
  readonly declared: number;
  /** Schema of the items after the prefix. Undefined if the schema does not restrict them. */
  readonly items: Conjunction | undefined;
  readonly min: number;
  readonly max: number;
  readonly unique: boolean;
  /** Schemas that at least one item must satisfy. */
  readonly contains: readonly Conjunction[];
  readonly at: string;
}

/** Returns the schemas of the item at an index. */
export const itemSchemas = ({ prefix, items }: ArrayAlternative, index: number): Conjunction =>
  prefix[index] ?? items ?? [];

export interface ObjectAlternative {
  readonly type: 'object';
  readonly scopes: readonly Scope[];
  readonly required: readonly string[];
  readonly min: number;
  readonly max: number;
  /** Schemas that all names must satisfy. */
  readonly names: Conjunction;
  readonly at: string;
}

/** `properties`, `patternProperties` and `additionalProperties` of one schema, which refer to each other. */
export interface Scope {
  readonly properties: ReadonlyMap<string, Conjunction>;
  readonly patterns: readonly { readonly pattern: Pattern; readonly values: Conjunction }[];
  /** Schemas of all other properties. Undefined if the keyword is absent. */
  readonly additional: Conjunction | undefined;
  /** True if the scope mentions properties without declaring them, for example under `not`. */
  readonly silent: boolean;
}

export const anyNumber: NumberAlternative = {
  type: 'number',
  integer: false,
  min: undefined,
  max: undefined,
  multipleOf: undefined,
};
export const anyString: StringAlternative = {
  type: 'string',
  min: 0,
  max: Number.POSITIVE_INFINITY,
  patterns: [],
  excluded: [],
};
export const anyArray: ArrayAlternative = {
  type: 'array',
  prefix: [],
  declared: 0,
  items: undefined,
  min: 0,
  max: Number.POSITIVE_INFINITY,
  unique: false,
  contains: [],
  at: '',
};
export const anyObject: ObjectAlternative = {
  type: 'object',
  scopes: [],
  required: [],
  min: 0,
  max: Number.POSITIVE_INFINITY,
  names: [],
  at: '',
};

/** Normal form of the schema that allows all values. */
export const anything: readonly Alternative[] = [
  anyObject,
  anyArray,
  anyString,
  anyNumber,
  { type: 'boolean' },
  { type: 'null' },
];

/** Error for a schema that no normal form can express. `at` is the path of the keyword. */
export class UnsupportedError extends Error {
  readonly at: string;
  constructor(at: string, problem = 'is not supported') {
    super(problem);
    this.at = at;
  }
}
