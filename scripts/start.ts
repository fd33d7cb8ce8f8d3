/** Entry point of `npm start`: enables the cache of compiled modules before it imports the services. */
import { enableCompileCache } from 'node:module';
import { join } from 'node:path';
import { ownCaches, userCaches } from '@ptp/protocol/cached-json';

// With cached modules, a process takes half the time and memory until it loads its model. The cache must be enabled
// before the modules are imported. The services inherit the variable.
const caches = userCaches(process.env);
if (caches) {
  process.env.NODE_COMPILE_CACHE ??= join(ownCaches(caches), 'compiled');
  enableCompileCache();
}

const { startServices } = await import('./start-services.ts');
const { reportError } = await import('./supervisor.ts');
try {
  process.exitCode = await startServices();
} catch (error) {
  reportError(error);
  process.exitCode = 1;
}
