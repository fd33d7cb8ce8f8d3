import { runModelService } from '@ptp/engine/model-service';
import { openDraftEngine, openDraftModel } from '@ptp/engine/open-engine';
import { Drafter } from './drafter.ts';
import { drafterService } from './service.ts';
import { drafterSettings } from './settings.ts';

await runModelService({
  name: 'drafter',
  settings: drafterSettings,
  served: ({ model, draftModel }) =>
    draftModel ? { kind: 'target', path: draftModel } : { kind: 'drafter', path: model },
  openEngine: (options, { draftModel }) =>
    draftModel
      ? openDraftModel({ ...options, dir: draftModel }, options.dir, drafterSettings.draftModel.name)
      : openDraftEngine(options),
  implement: ({ engine, model, limits, observe }) =>
    drafterService(new Drafter(engine, { budget: 64, block: 64, ...limits }, observe), model),
});
