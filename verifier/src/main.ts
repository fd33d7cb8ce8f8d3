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
  async implement({ engine, model, limits, observe, registry, logger }) {
    const batchInvariant = await selfCheck(engine, registry, logger, await KnownVerdict.of(engine.info));
    return verifierService(new Verifier(engine, { draft: 64, ...limits }, observe), model, batchInvariant);
  },
});
