import fc from 'fast-check';

/** Generates output constraints. Most are valid, so that they get past validation. */

const count = fc.oneof(
  { weight: 20, arbitrary: fc.nat(6) },
  fc.constantFrom(-1, 1.5, 1000, 2 ** 31, Number.MAX_SAFE_INTEGER, null),
);
const limit = fc.oneof(
  { weight: 16, arbitrary: fc.integer({ min: -50, max: 50 }) },
  { weight: 3, arbitrary: fc.double({ noNaN: true, noDefaultInfinity: true }) },
  fc.constantFrom(0, 1e300, -1e300, 5e-324, 1e21, -0.1, '5'),
);
const name = fc.oneof(
  { weight: 9, arbitrary: fc.constantFrom('a', 'b', 'é') },
  fc.constantFrom('', '__proto__', 'a"b', '\ud800', '%', 'x'.repeat(20_000)),
);

/** Parts that regular expressions are concatenated from. */
const pieces = fc.constantFrom(
  ...[
    'a',
    'b',
    '[a-z]',
    '[^a]',
    '.',
    '\\d',
    '\\w',
    '\\s',
    '(a|b)',
    '(?:ab)',
    '|',
    '(',
    ')',
    '[',
    ']',
    '*',
    '+',
    '?',
    '*?',
  ],
  ...[
    '{2}',
    '{2,5}',
    '{0,300}',
    '{9,}',
    '{5,2}',
    '{99999999999}',
    '^',
    '$',
    '\\b',
    '(?=a)',
    '(?<n>a)',
    '\\1',
    '\\k<n>',
  ],
  ...['\\p{L}', '\\u{1F600}', '\\uD800', '[\\u{10FFFF}-\\u{0}]', 'é', '😀', '\\', '{', '\n', '(?i:a)', '[]', '[^]'],
);
export const regex = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom('[a-f]{2,9}(, [a-f]{2,9})*', 'a|b+', '\\d{3}-\\d{4}', '.*', '(a*)*', '') },
  { weight: 5, arbitrary: fc.array(pieces, { maxLength: 8 }).map((parts) => parts.join('')) },
  { weight: 1, arbitrary: fc.string({ unit: 'binary' }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      `${'('.repeat(900)}${')'.repeat(900)}`,
      `${'('.repeat(400)}a${')*'.repeat(400)}`,
      `(${'a?'.repeat(300)}){300}`,
      '(.{0,500}x){0,500}',
      '((a{0,99}){0,99}){0,99}',
      `${'(a|'.repeat(300)}b${')'.repeat(300)}`,
      'a'.repeat(2001),
    ),
  },
);

const anything = fc.jsonValue({ maxDepth: 2 });
const kinds = ['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'];
const type = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...kinds) },
  fc.array(fc.constantFrom(...kinds), { maxLength: 3 }),
  fc.constantFrom<unknown>('any', 5, null),
);
const keyword = fc.constantFrom(
  ...['$ref', 'type', 'enum', 'const', 'anyOf', 'oneOf', 'allOf', 'properties', 'required', 'additionalProperties'],
  ...['items', 'prefixItems', 'minItems', 'maxItems', 'uniqueItems', 'minLength', 'maxLength', 'pattern', 'format'],
  ...['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf', 'not', 'if', '$defs', 'description'],
);
const reference = fc.constantFrom(
  ...['#', '#/$defs/a', '#/$defs/b', '#/properties/a', '#/$defs/a/items', '#/%zz', '#/~2', '#/constructor', 'a', ''],
);
const some = { requiredKeys: [] };

const { schema } = fc.letrec<{ schema: unknown }>((tie) => {
  const inner = tie('schema');
  const list = fc.array(inner, { minLength: 1, maxLength: 3 });
  const properties = fc.dictionary(name, inner, { maxKeys: 3 });
  const leaves = [
    fc.record({ type: fc.constant('string'), minLength: count, maxLength: count }, { requiredKeys: ['type'] }),
    fc.record({ type: fc.constant('string'), pattern: regex }),
    fc.record({ format: fc.constantFrom('date', 'date-time', 'uuid', 'email', 'other', '__proto__', 'constructor') }),
    fc.record(
      { type: fc.constantFrom('integer', 'number'), minimum: limit, maximum: limit },
      { requiredKeys: ['type'] },
    ),
    fc.record({ exclusiveMinimum: limit, exclusiveMaximum: limit, multipleOf: limit }, some),
    fc.record({ type: fc.constantFrom(...kinds) }),
    fc.record({ const: anything }),
    fc.record({ enum: fc.array(anything, { minLength: 1, maxLength: 4 }) }),
    fc.record({ $ref: reference }),
  ];
  const nested = [
    fc.tuple(properties, fc.boolean()).map(([given, all]) => {
      return { type: 'object', properties: given, ...(all && { required: Object.keys(given) }) };
    }),
    fc.record({ properties, additionalProperties: inner }, some),
    fc.record(
      { type: fc.constant('array'), items: inner, minItems: count, maxItems: count },
      { requiredKeys: ['type'] },
    ),
    fc.record({ prefixItems: list, items: inner }, some),
    fc.record({ anyOf: list }),
    fc.record({ oneOf: list }),
    fc.record({ allOf: fc.tuple(inner) }),
  ];
  const loose = fc.oneof(anything, inner, list, type, fc.array(name, { maxLength: 2 }));
  return {
    schema: fc.oneof(
      { maxDepth: 3, depthSize: 'small' },
      { weight: 30, arbitrary: fc.oneof(...leaves) },
      { weight: 30, arbitrary: fc.oneof(...nested) },
      { weight: 1, arbitrary: fc.constantFrom<unknown>(true, false, null, 5, 'a', []) },
      { weight: 3, arbitrary: fc.dictionary(keyword, loose, { maxKeys: 3 }) },
    ),
  };
});

/** Generates a schema. Some schemas have definitions at their root, to which other parts refer. */
export const jsonSchema = fc
  .tuple(schema, fc.option(fc.dictionary(fc.constantFrom('a', 'b'), schema), { nil: undefined }))
  .map(([root, $defs]) =>
    typeof root === 'object' && root !== null && !Array.isArray(root) && $defs ? { ...root, $defs } : root,
  );

/** Generates deeply nested JSON. */
export const deepJson = fc
  .tuple(
    fc.constantFrom<[string, string]>(['[', ']'], ['{"a":', '}'], ['{"items":', '}'], ['{"anyOf":[', ']}']),
    fc.constantFrom(20, 63, 64, 65, 500, 5000, 50_000),
    fc.constantFrom('{}', 'true', '1'),
  )
  .map(([[open, close], depth, core]) => open.repeat(depth) + core + close.repeat(depth));
