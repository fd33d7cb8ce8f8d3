import { z } from 'zod';

/** Parts of request schemas. Each error message completes the sentence "`field` must be ...", which clients receive. */

export const integer = (min: number, max: number, error: string) =>
  z.int({ error }).min(min, { error }).max(max, { error });
export const number = z.number({ error: 'a number' });
export const boolean = z.boolean({ error: 'true or false' });
export const object = <Shape extends z.core.$ZodLooseShape>(shape: Shape) => z.object(shape, { error: 'an object' });
export const text = z.string({ error: 'a string' }).refine((value) => value.isWellFormed(), 'free of lone surrogates');
export const positive = integer(1, Number.MAX_SAFE_INTEGER, 'an integer >= 1').nullish();
