import type { Command } from 'commander';
import { context } from './context.ts';
import { decode } from './decode.ts';
import { engine } from './engine.ts';
import { exact } from './exact.ts';
import { grammar } from './grammar.ts';
import { hosts } from './hosts.ts';
import { load } from './load.ts';
import { overhead } from './overhead.ts';
import { peers } from './peers.ts';
import { prefill } from './prefill.ts';
import { report } from './report.ts';
import { scaling } from './scaling.ts';
import { seam } from './seam.ts';
import { step } from './step.ts';
import { tracing } from './tracing.ts';

/** All suites, in the order of the help text. */
export const suites: readonly Command[] = [
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
