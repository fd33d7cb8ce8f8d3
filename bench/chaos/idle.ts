/** Does nothing but record the delay of its event loop, for comparison with a busy process: `node idle.ts FILE`. */
import { recordLoopDelay } from './loop-delay.ts';

recordLoopDelay(process.argv[2] ?? '');
setInterval(() => {}, 60_000);
