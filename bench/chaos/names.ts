import { readFileSync } from 'node:fs';
import { writeWhole } from './write-whole.ts';

/** Environment variable with the path of the file of names. */
export const NAMES_FILE = 'CHAOS_NAMES_FILE';

/** DNS names of the fleet and the addresses of each name, in a file that the gateway reads. */
export class Names {
  readonly path: string;
  readonly #addresses: Record<string, string[]> = {};

  constructor(path: string) {
    this.path = path;
    this.#write();
  }

  add(name: string, address: string): void {
    this.#addresses[name] = [...(this.#addresses[name] ?? []), address];
    this.#write();
  }

  remove(name: string, address: string): void {
    this.#addresses[name] = (this.#addresses[name] ?? []).filter((each) => each !== address);
    this.#write();
  }

  #write(): void {
    writeWhole(this.path, JSON.stringify(this.#addresses));
  }
}

/** Returns the addresses of a name in the file, or undefined if the file does not have the name. */
export function addressesIn(path: string, name: string): string[] | undefined {
  return JSON.parse(readFileSync(path, 'utf8'))[name];
}
