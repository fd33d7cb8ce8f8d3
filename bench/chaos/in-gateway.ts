/** Preload script of the gateway: resolves the fleet's names and records the delay of the event loop. */
import dns from 'node:dns/promises';
import { syncBuiltinESMExports } from 'node:module';
import { recordLoopDelay } from './loop-delay.ts';
import { addressesIn, NAMES_FILE } from './names.ts';

const names = process.env[NAMES_FILE] ?? '';
const delays = process.env.CHAOS_DELAY_FILE;
const { lookup } = dns;

async function lookupInFleet(name: string, options: object) {
  const addresses = addressesIn(names, name);
  if (!addresses) return lookup(name, options);
  if (addresses.length === 0) throw Object.assign(new Error(`getaddrinfo ENOTFOUND ${name}`), { code: 'ENOTFOUND' });
  return addresses.map((address) => ({ address, family: 4 }));
}

if (names) {
  dns.lookup = lookupInFleet as typeof lookup;
  syncBuiltinESMExports();
}
if (delays) recordLoopDelay(delays);
