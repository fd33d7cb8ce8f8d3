#!/usr/bin/env node
/** Command `ptp` of the npm package. These subcommands start the terminal client. All others start the server. */
const CLIENT = ['complete', 'chat', 'models', 'bench'];

await (CLIENT.includes(process.argv[2] ?? '') ? import('./main.ts') : import('../scripts/start.ts'));

export {};
