import { text as readAll } from 'node:stream/consumers';
import { ModelError } from '@ptp/service-kit/models/model-error';
import { Command, CommanderError, Option } from 'commander';
import { median } from '../bench/statistics.ts';
import { answer, measure, summary } from './answer.ts';
import { chat } from './chat.ts';
import { Client, RequestError } from './client.ts';
import { addModelCommands } from './models.ts';

interface Options {
  readonly url: string;
  readonly key?: string;
  readonly model?: string;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topP: number;
  readonly seed?: number;
  readonly draft: boolean;
  readonly compare?: boolean;
  readonly repeats: number;
  readonly json?: boolean;
}

const program = new Command('ptp')
  .description('Terminal client for ptp-server and other servers with the OpenAI API.')
  .addOption(
    new Option('--url <url>', "base URL of the server's API").env('PTP_URL').default('http://127.0.0.1:8080/v1'),
  )
  .addOption(new Option('--key <key>', 'API key').env('PTP_KEY'))
  .option('--model <id>', "model (default: the server's first)")
  .addOption(numberOption('--max-tokens <n>', 'maximum number of tokens to generate').default(200))
  .addOption(numberOption('--temperature <x>', 'sampling temperature, in [0, 2]').default(0.7))
  .addOption(numberOption('--top-p <x>', 'nucleus sampling, in (0, 1]').default(0.9))
  .addOption(numberOption('--seed <n>', 'seed for a repeatable answer'))
  .option('--no-draft', 'disable the drafter')
  .option('--compare', 'complete: also measure without the drafter')
  .addOption(
    numberOption(
      '--repeats <n>',
      'bench: number of requests to measure with the drafter, and the same number without it',
    ).default(8),
  )
  .option('--json', 'print the result as one line of JSON')
  .addHelpText(
    'after',
    '\nGreen tokens were drafted, and magenta tokens repeat earlier text. NO_COLOR disables colors.',
  )
  .helpCommand(false)
  .configureHelp({ helpWidth: 100 })
  .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'ptp: ')) })
  .exitOverride();

program
  .command('complete <prompt...>')
  .description('continue a text; the prompt - reads it from standard input')
  .action(complete);
program
  .command('chat')
  .description(
    'chat with the model; Ctrl-C stops the current answer, or exits if there is none. /clear forgets the conversation, /system TEXT sets instructions',
  )
  .action(async () => {
    const { options, client, body } = await connect();
    const { stdin: input, stdout: output } = process;
    const terminal = input.isTTY === true && output.isTTY === true;
    const isComplete = await chat({ client, body: body(options.draft), colored: colored(), input, output, terminal });
    if (!isComplete && !terminal) process.exitCode = 1;
  });
const models = program
  .command('models')
  .description("list the server's models, or with a subcommand, manage the models on this machine")
  .action(async () => {
    const { options, ids } = await connect();
    console.log(options.json ? JSON.stringify(ids) : ids.join('\n'));
  });
addModelCommands(models);
program.command('bench').description('measure the same requests with and without the drafter').action(bench);

// A reader such as `head` may close the pipe early.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit();
});

try {
  await program.parseAsync();
} catch (error) {
  const isExpected = error instanceof RequestError || error instanceof ModelError;
  if (isExpected) console.error(`ptp: ${error.message}`);
  else if (!(error instanceof CommanderError)) throw error;
  process.exitCode = isExpected ? 1 : error.exitCode && 2;
}

async function complete(words: string[]): Promise<void> {
  const { options, client, isPtp, body } = await connect();
  const prompt = words.join(' ') === '-' ? await readAll(process.stdin) : words.join(' ');
  const { seed = Math.floor(Math.random() * 2 ** 32) } = options;
  const request = (draft: boolean) => ({ ...body(draft), prompt, seed });
  const write = options.json ? () => {} : (text: string) => process.stdout.write(text);
  const done = await answer(client.stream('completions', request(options.draft)), write, colored());
  const plain = options.compare && isPtp ? await measure(client, request(false)) : undefined;
  const identical = plain && plain.text === done.text;
  if (options.json) console.log(JSON.stringify({ ...done, ...(plain && { plain, identical }) }));
  else console.error(`\n${summary(done, plain)}${plain ? `; ${textsAre(identical)}` : ''}`);
  if (identical === false) process.exitCode = 1;
}

async function bench(): Promise<void> {
  const { repeats } = program.opts<Options>();
  if (!Number.isInteger(repeats) || repeats < 1) {
    program.error(`ptp: --repeats must be an integer >= 1, got ${repeats}`);
  }
  const { options, client, isPtp, body } = await connect();
  if (!isPtp) program.error('ptp: bench needs a ptp-server, because other servers cannot turn a drafter off');
  const speedups: number[] = [];
  let identical = true;
  for (let seed = 0; seed < options.repeats; seed++) {
    const run = (draft: boolean) => measure(client, { ...body(draft), prompt: 'export interface Options {', seed });
    const draftFirst = seed % 2 === 0;
    const first = await run(draftFirst);
    const second = await run(!draftFirst);
    const [drafted, plain] = draftFirst ? [first, second] : [second, first];
    speedups.push(plain.msPerToken / drafted.msPerToken);
    identical &&= plain.text === drafted.text;
    if (!options.json) console.error(`${seed + 1}/${options.repeats}: ${summary(drafted, plain)}`);
  }
  const speedup = median(speedups);
  const result = { requests: options.repeats, speedup: Number(speedup.toFixed(3)), identical };
  const line = `median speedup ${speedup.toFixed(2)}; ${textsAre(identical)}`;
  console.log(options.json ? JSON.stringify(result) : line);
  if (!identical) process.exitCode = 1;
}

function textsAre(identical = false): string {
  return identical ? 'the texts are identical' : 'the texts are NOT identical';
}

async function connect() {
  const options = program.opts<Options>();
  const { url, key, model, maxTokens, temperature, topP, seed } = options;
  const client = new Client({ url, key });
  const { ids, isPtp } = await client.models();
  const fields = {
    model: model ?? ids[0],
    max_tokens: maxTokens,
    temperature,
    top_p: topP,
    ...(seed !== undefined && { seed }),
  };
  /** Returns the fields of a request. Only a ptp-server gets `ptp`, because other servers would reject it. */
  const body = (draft: boolean) => ({ ...fields, ...(isPtp && { ptp: { draft, trace: true } }) });
  return { options, client, ids, isPtp, body };
}

function numberOption(flags: string, description: string): Option {
  return new Option(flags, description).argParser((text: string) => {
    if (text.trim() !== '' && Number.isFinite(Number(text))) return Number(text);
    return program.error(`ptp: ${flags.split(' ')[0]} must be a number, got ${text}`);
  });
}

function colored(): boolean {
  return process.stdout.isTTY === true && !process.env.NO_COLOR;
}
