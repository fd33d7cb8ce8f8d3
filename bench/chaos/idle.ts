/** Idle process that records the delay of its event loop, as a reference for busy processes: `node idle.ts FILE`. */
import { recordLoopDelay } from './loop-delay.ts';

recordLoopDelay(process.argv[2] ?? '');
setInterval(() => {}, 60_000);
