#!/usr/bin/env node
/** The command `ptp` of the npm package: `ptp chat` and the like are the terminal client, everything else serves. */
const CLIENT = ['complete', 'chat', 'models', 'bench'];

await (CLIENT.includes(process.argv[2] ?? '') ? import('./main.ts') : import('../scripts/start.ts'));

export {};
