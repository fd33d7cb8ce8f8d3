import { runModelService } from '@ptp/engine/model-service';
import { openDraftEngine, openDraftModel } from '@ptp/engine/open-engine';
import { PREFILL_CHUNK, QUEUE_LIMIT } from '@ptp/engine/scheduler';
import { Drafter } from './drafter.ts';
import { drafterService } from './service.ts';
import { drafterSettings } from './settings.ts';

await runModelService({
  name: 'drafter',
  settings: drafterSettings,
  openEngine: (options, { draftModel }) =>
    draftModel
      ? openDraftModel({ ...options, dir: draftModel }, options.dir, drafterSettings.draftModel.name)
      : openDraftEngine(options),
  implement({ engine, model, observe }, { batchTokens, sequences }) {
    const limits = {
      budget: 64,
      block: 64,
      prefillChunk: PREFILL_CHUNK,
      batchTokens,
      sequences,
      queue: Math.max(QUEUE_LIMIT, sequences),
    };
    return drafterService(new Drafter(engine, limits, observe), model);
  },
});
