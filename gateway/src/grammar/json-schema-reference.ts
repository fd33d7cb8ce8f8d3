import { invalidField } from '@ptp/protocol/validation';

/**
 * Returns the part of a schema to which a `$ref` points.
 *
 * @param pointer JSON pointer as a URI fragment (RFC 6901): `#`, `#/$defs/name`
 * @param at path of the schema that contains the reference, for errors
 * @throws PtpError `invalid_argument` if the pointer leads outside the schema
 */
export function resolveReference(root: unknown, pointer: string, at: string): unknown {
  const field = `${at}.$ref`;
  if (!/^#(\/|$)/.test(pointer)) {
    throw invalidField(field, 'a reference within the schema, for example "#/$defs/name"', pointer);
  }
  let schema = root;
  for (const part of pointer.split('/').slice(1)) {
    const key = decode(part).replaceAll('~1', '/').replaceAll('~0', '~');
    const found = typeof schema === 'object' && schema !== null && Object.hasOwn(schema, key);
    if (!found) throw invalidField(field, 'a reference to a part of the schema', pointer);
    schema = (schema as Record<string, unknown>)[key];
  }
  return schema;
}

/** Percent-decodes a part of a URI fragment. A malformed part stays unchanged, so that it matches no name. */
function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
