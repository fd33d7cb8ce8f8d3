/** `ptp`: a terminal client for this server and others with OpenAI's API. `ptp --help` tells the rest. */
import { parseArgs } from 'node:util';
import { answer, silently, summary } from './answer.ts';
import { chat } from './chat.ts';
import { Client, RequestError } from './client.ts';

const USAGE = `ptp COMMAND [options]

commands
  complete PROMPT   continues a text; - reads it from standard input
  chat              a conversation; Ctrl-C stops an answer, and the program where there is none
  models            what the server serves
  bench             the same requests with the drafter and without it, in turn

options
  --url URL         the server (PTP_URL, else http://127.0.0.1:8080/v1)
  --key KEY         its API key (PTP_KEY)
  --model ID        the model (the server's first)
  --max-tokens N    tokens to generate (200)
  --temperature X   in [0, 2] (0.7)
  --top-p X         in (0, 1] (0.9)
  --seed N          makes the answer repeatable
  --no-draft        without the drafter
  --compare         complete: measures the same without the drafter, too
  --repeats N       bench: requests each way (8)
  --json            one line of JSON

Colours: green was drafted, magenta came from the text before, and both were what the model says; NO_COLOR switches them off.`;

const { values, positionals } = parse();
const [command = '', ...words] = positionals;
if (values.help || command === '') {
  console.error(USAGE);
  process.exit(values.help ? 0 : 2);
}
try {
  process.exitCode = await run();
} catch (error) {
  if (!(error instanceof RequestError)) throw error;
  console.error(`ptp: ${error.message}`);
  process.exitCode = 1;
}

function parse() {
  const text = { type: 'string' } as const;
  const flag = { type: 'boolean', default: false } as const;
  const options = {
    ...{ url: text, key: text, model: text, 'max-tokens': text, temperature: text, 'top-p': text, seed: text },
    ...{ repeats: text, 'no-draft': flag, compare: flag, json: flag, help: flag },
  };
  try {
    return parseArgs({ allowPositionals: true, options });
  } catch (error) {
    return refuse((error as Error).message);
  }
}

function refuse(message: string): never {
  console.error(`ptp: ${message}; \`ptp --help\` tells what there is`);
  process.exit(2);
}

function number(
  name: 'max-tokens' | 'temperature' | 'top-p' | 'seed' | 'repeats',
  otherwise?: number,
): number | undefined {
  const given = values[name];
  if (given === undefined) return otherwise;
  const value = Number(given);
  return given.trim() !== '' && Number.isFinite(value) ? value : refuse(`--${name} must be a number, got ${given}`);
}

async function run(): Promise<number> {
  const url = values.url ?? process.env.PTP_URL ?? 'http://127.0.0.1:8080/v1';
  const client = new Client({ url, key: values.key ?? process.env.PTP_KEY });
  const { ids, ours } = await client.models();
  if (command === 'models') {
    console.log(values.json ? JSON.stringify(ids) : ids.join('\n'));
    return 0;
  }
  const seed = number('seed');
  const common = {
    model: values.model ?? ids[0],
    max_tokens: number('max-tokens', 200),
    temperature: number('temperature', 0.7),
    top_p: number('top-p', 0.9),
    ...(seed !== undefined && { seed }),
  };
  const coloured = process.stdout.isTTY === true && !process.env.NO_COLOR;
  /** Other servers would refuse what they don't know. */
  const drafting = (draft: boolean) => (ours ? { ptp: { draft, trace: true } } : {});
  const body = { ...common, ...drafting(!values['no-draft']) };
  switch (command) {
    case 'complete': {
      const prompt = words.join(' ') === '-' ? await standardInput() : words.join(' ');
      if (prompt === '') refuse('complete needs a prompt');
      const fixed = { seed: Math.floor(Math.random() * 2 ** 32), ...body, prompt };
      const write = values.json ? () => {} : (text: string) => process.stdout.write(text);
      const done = await answer(client.stream('completions', fixed), write, coloured);
      const plain = values.compare && ours ? await silently(client, { ...fixed, ...drafting(false) }) : undefined;
      if (values.json)
        console.log(JSON.stringify({ ...done, ...(plain && { plain, identical: plain.text === done.text }) }));
      else console.error(`\n${summary(done, plain)}`);
      return plain && plain.text !== done.text ? 1 : 0;
    }
    case 'chat':
      await chat({
        client,
        body,
        coloured,
        input: process.stdin,
        output: process.stdout,
        terminal: process.stdin.isTTY === true && process.stdout.isTTY === true,
      });
      return 0;
    case 'bench': {
      if (!ours) refuse('bench compares drafter on and off, which only a ptp-server can switch');
      return bench(client, common, number('repeats', 8) as number);
    }
    default:
      return refuse(`unknown command ${command}`);
  }
}

async function bench(client: Client, common: object, repeats: number): Promise<number> {
  const ratios: number[] = [];
  let identical = true;
  for (let turn = 0; turn < repeats; turn++) {
    const body = { ...common, seed: turn, prompt: 'export interface Options {\n' };
    const way = (draft: boolean) => silently(client, { ...body, ptp: { draft, trace: true } });
    const first = await way(turn % 2 === 0);
    const second = await way(turn % 2 !== 0);
    const [drafted, plain] = turn % 2 === 0 ? [first, second] : [second, first];
    ratios.push(plain.msPerToken / drafted.msPerToken);
    identical &&= plain.text === drafted.text;
    if (!values.json) console.error(`${turn + 1}/${repeats}: ${summary(drafted, plain)}`);
  }
  const speedup = ratios.sort((a, b) => a - b)[Math.floor(ratios.length / 2)] ?? Number.NaN;
  const result = { requests: repeats, speedup: Number(speedup.toFixed(3)), identical };
  console.log(
    values.json
      ? JSON.stringify(result)
      : `${speedup.toFixed(2)} times as fast with the drafter (median of ${repeats}); the texts are ${identical ? 'identical' : 'NOT identical'}`,
  );
  return identical ? 0 : 1;
}

async function standardInput(): Promise<string> {
  let text = '';
  for await (const chunk of process.stdin.setEncoding('utf8')) text += chunk;
  return text;
}
