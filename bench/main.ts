/** `npm run bench -- SUITE [options]`: each suite ends with one line of JSON. */
import { Command } from 'commander';
import { context } from './suites/context.ts';
import { decode } from './suites/decode.ts';
import { engine } from './suites/engine.ts';
import { exact } from './suites/exact.ts';
import { grammar } from './suites/grammar.ts';
import { hosts } from './suites/hosts.ts';
import { load } from './suites/load.ts';
import { overhead } from './suites/overhead.ts';
import { peers } from './suites/peers.ts';
import { prefill } from './suites/prefill.ts';
import { report } from './suites/report.ts';
import { scaling } from './suites/scaling.ts';
import { seam } from './suites/seam.ts';
import { step } from './suites/step.ts';
import { tracing } from './suites/tracing.ts';

const program = new Command('npm run bench --')
  .usage('SUITE [options]')
  .description('Measures the server. Each suite ends with one line of JSON on stdout; progress goes to stderr.')
  .configureHelp({ helpWidth: 100 })
  .helpCommand(false);
const suites = [
  exact,
  decode,
  load,
  context,
  prefill,
  overhead,
  seam,
  step,
  engine,
  peers,
  hosts,
  tracing,
  scaling,
  grammar,
  report,
];
for (const suite of suites) program.addCommand(suite);
await program.parseAsync().catch((error: Error) => program.error(`error: ${error.message}`));
