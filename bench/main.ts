/** `npm run bench -- SUITE [options]`: each suite ends with one line of JSON. */
import { Command } from 'commander';
import { suites } from './suites/index.ts';

const program = new Command('npm run bench --')
  .usage('SUITE [options]')
  .description('Measures the server. Each suite ends with one line of JSON on stdout; progress goes to stderr.')
  .configureHelp({ helpWidth: 100 })
  .helpCommand(false);
for (const suite of suites) program.addCommand(suite);
await program.parseAsync().catch((error: Error) => program.error(`error: ${error.message}`));
