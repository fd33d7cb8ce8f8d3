import { runModelService } from '@ptp/engine/model-service';
import { openTargetEngine } from '@ptp/engine/open-engine';
import { KnownVerdict } from './known-verdict.ts';
import { selfCheck } from './self-check.ts';
import { verifierService } from './service.ts';
import { verifierSettings } from './settings.ts';
import { Verifier } from './verifier.ts';

await runModelService({
  name: 'verifier',
  settings: verifierSettings,
  served: ({ model }) => ({ kind: 'target', path: model }),
  openEngine: (options) => openTargetEngine(options),
  async implement({ engine, model, limits, observe, registry, logger }, { model: dir, threads }) {
    const { runtime, maxSlots, contextLength } = engine.info;
    const known = runtime ? await KnownVerdict.of({ dir, runtime, threads, maxSlots, contextLength }) : undefined;
    const batchInvariant = await selfCheck(engine, registry, logger, known);
    return verifierService(new Verifier(engine, { draft: 64, ...limits }, observe), model, batchInvariant);
  },
});
