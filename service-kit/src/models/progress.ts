const UNITS = ['B', 'kB', 'MB', 'GB', 'TB'];

/** Returns a size as text, such as 5.03 GB. The units are powers of 1,000. */
export function formatBytes(bytes: number): string {
  const power = bytes < 1 ? 0 : Math.min(Math.floor(Math.log10(bytes) / 3), UNITS.length - 1);
  const value = bytes / 1000 ** power;
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toPrecision(3)} ${UNITS[power]}`;
}

/** The part of a terminal's stream that a progress line needs. */
export interface ProgressStream {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

const REDRAW_MS = 200;
/** Interval in milliseconds between lines if they cannot be redrawn, as in a log file. */
const LINE_MS = 10_000;

/** Shows the progress of a transfer: one line that is redrawn on a terminal, or else a new line from time to time. */
export class ProgressLine {
  readonly #out: ProgressStream;
  readonly #total: number;
  readonly #started = performance.now();
  readonly #intervalMs: number;
  readonly #first: number;
  #done: number;
  #shown = 0;

  /** @param done number of bytes that an earlier attempt has transferred */
  constructor(out: ProgressStream, total: number, done: number) {
    this.#out = out;
    this.#total = total;
    this.#done = done;
    this.#first = done;
    this.#intervalMs = out.isTTY ? REDRAW_MS : LINE_MS;
  }

  add(bytes: number): void {
    this.#done += bytes;
    const now = performance.now();
    if (now - this.#shown < this.#intervalMs) return;
    this.#shown = now;
    this.#draw();
  }

  /** Writes the last state. */
  end(): void {
    this.#draw();
    if (this.#out.isTTY) this.#out.write('\n');
  }

  #draw(): void {
    const seconds = (performance.now() - this.#started) / 1000;
    const speed = (this.#done - this.#first) / seconds;
    const left = speed > 0 ? ` ${duration((this.#total - this.#done) / speed)} left` : '';
    const percent = Math.floor((100 * this.#done) / this.#total);
    const text = `${percent} % of ${formatBytes(this.#total)}, ${formatBytes(Math.round(speed))}/s,${left}`;
    this.#out.write(this.#out.isTTY ? `\r\u001b[K${text}` : `${text}\n`);
  }
}

function duration(seconds: number): string {
  const rounded = Math.ceil(seconds);
  return rounded < 120 ? `${rounded} s` : `${Math.ceil(rounded / 60)} min`;
}
