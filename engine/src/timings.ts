import { create } from '@bufbuild/protobuf';
import { type Timings, TimingsSchema } from '@ptp/protocol/gen/ptp/v1/common_pb';
import type { Served } from './scheduler.ts';

/** A run's timings as they travel to the gateway. @param tokens the slot's own tokens in the run */
export function timingsOf(served: Served<unknown>, tokens: number): Timings {
  return create(TimingsSchema, {
    queueUs: served.queueMicros,
    runUs: served.runMicros,
    batchSize: served.batchSize,
    tokens,
    batchTokens: served.batchTokens,
  });
}
