/**
 * A request to show as code.
 *
 * @typedef {object} Call
 * @property {string} base address of the server, with a slash at the end
 * @property {boolean} hasKey true if the server requires an API key
 * @property {boolean} isChat
 * @property {Record<string, unknown>} body
 */

/** Fields of the request body that OpenAI's clients do not know. */
const EXTENSIONS = ['top_k', 'token_healing', 'ptp'];

/** Functions that write a request as code. @type {Record<string, (call: Call) => string>} */
export const SNIPPETS = { curl, python, typescript };

/** @param {Call} call */
function curl({ base, hasKey, isChat, body }) {
  const json = JSON.stringify(body, undefined, 2).replaceAll("'", "'\\''");
  const lines = [
    `curl -N ${base}v1/${isChat ? 'chat/completions' : 'completions'}`,
    "-H 'content-type: application/json'",
    ...(hasKey ? ['-H "authorization: Bearer $PTP_API_KEY"'] : []),
    `-d '${json}'`,
  ];
  return lines.join(' \\\n  ');
}

/** @param {Call} call */
function python({ base, hasKey, isChat, body }) {
  const { known, extensions } = divided(body);
  const fields = known.map(([name, value]) => `    ${name}=${pythonValue(value)},`);
  if (extensions.length > 0) fields.push(`    extra_body=${pythonValue(Object.fromEntries(extensions))},`);
  return [
    ...(hasKey ? ['import os', ''] : []),
    'from openai import OpenAI',
    '',
    `client = OpenAI(base_url="${base}v1", api_key=${hasKey ? 'os.environ["PTP_API_KEY"]' : '"any"'})`,
    `stream = client.${isChat ? 'chat.completions' : 'completions'}.create(`,
    ...fields,
    ')',
    'for chunk in stream:',
    `    print(chunk.choices[0].${isChat ? 'delta.content or ""' : 'text'}, end="", flush=True)`,
  ].join('\n');
}

/** @param {Call} call */
function typescript({ base, hasKey, isChat, body }) {
  const { known, extensions } = divided(body);
  const fields = known.map(([name, value]) => `  ${name}: ${JSON.stringify(value)},`);
  // The type `object` keeps the compiler from rejecting fields that the client does not know.
  if (extensions.length > 0) fields.push(`  ...(${JSON.stringify(Object.fromEntries(extensions))} as object),`);
  return [
    "import OpenAI from 'openai';",
    '',
    `const client = new OpenAI({ baseURL: '${base}v1', apiKey: ${hasKey ? 'process.env.PTP_API_KEY' : "'any'"} });`,
    `const stream = await client.${isChat ? 'chat.completions' : 'completions'}.create({`,
    ...fields,
    '});',
    'for await (const chunk of stream) {',
    `  process.stdout.write(chunk.choices[0]?.${isChat ? 'delta.content' : 'text'} ?? '');`,
    '}',
  ].join('\n');
}

/** Separates the fields that OpenAI's clients know from the others. @param {Record<string, unknown>} body */
function divided(body) {
  const entries = Object.entries(body);
  return {
    known: entries.filter(([name]) => !EXTENSIONS.includes(name)),
    extensions: entries.filter(([name]) => EXTENSIONS.includes(name)),
  };
}

/** @param {unknown} value a JSON value @returns {string} */
function pythonValue(value) {
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (value === null) return 'None';
  if (Array.isArray(value)) return `[${value.map(pythonValue).join(', ')}]`;
  if (typeof value !== 'object') return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([name, each]) => `"${name}": ${pythonValue(each)}`)
    .join(', ')}}`;
}
