import { parse, View } from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';

/** Line charts as SVG, by Vega-Lite, without a browser. */

export interface Axis {
  /** What it shows, with its unit. */
  readonly title: string;
  /** `log` for logarithms to the base 2 on x, 10 on y; linear, from 0 on, unless given. */
  readonly scale?: 'log';
}

export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
  /** For bounds and comparisons. */
  readonly dashed?: boolean;
}

export interface Panel {
  readonly title: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly series: readonly Series[];
}

/** Okabe and Ito's colours, which the colour-blind can tell apart (Wong 2011, doi 10.1038/nmeth.1618), the yellow left out: it is faint on white. */
const COLOURS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000'];
/** One for colour and dash together. */
const legend = { orient: 'bottom' as const, title: null, columns: 4, symbolType: 'stroke' };
const SIZE = { width: 330, height: 250 };

/**
 * Panels side by side, over a white ground so that they can be read on a dark page too. Series of the same name have the same colour; they
 * get colours in the order in which they first come.
 *
 * @param panels 1 or more, with at most 7 names of series
 * @param title what the whole shows, for readers who cannot see it
 */
export async function lineChart(panels: readonly Panel[], title: string): Promise<string> {
  const names = [...new Set(panels.flatMap((panel) => panel.series.map(({ name }) => name)))];
  if (names.length > COLOURS.length) throw new Error(`at most ${COLOURS.length} series, got ${names.length}`);
  const dashed = new Set(panels.flatMap(({ series }) => series.filter((each) => each.dashed).map(({ name }) => name)));
  const spec: TopLevelSpec = {
    background: 'white',
    padding: 12,
    config: {
      aria: false,
      font: 'Helvetica, Arial, sans-serif',
      axis: { labelFontSize: 11, titleFontSize: 12, titleFontWeight: 'normal', gridColor: '#e4e4e4' },
      legend: { labelFontSize: 12, labelLimit: 400, symbolStrokeWidth: 2.5, symbolSize: 260, columnPadding: 18 },
      title: { fontSize: 13, fontWeight: 'bold', anchor: 'start' },
    },
    hconcat: panels.map((panel) => ({
      ...SIZE,
      title: panel.title,
      data: { values: panel.series.flatMap(({ name, points }) => points.map(([x, y]) => ({ name, x, y }))) },
      mark: { type: 'line', point: { size: 26 }, strokeWidth: 2 },
      encoding: {
        x: {
          field: 'x',
          type: 'quantitative',
          title: panel.x.title,
          scale: scaleOf(panel.x, 2),
          axis: ticksOf(panel, 'x'),
        },
        y: {
          field: 'y',
          type: 'quantitative',
          title: panel.y.title,
          scale: scaleOf(panel.y, 10),
          axis: ticksOf(panel, 'y'),
        },
        color: {
          field: 'name',
          type: 'nominal',
          scale: { domain: names, range: COLOURS.slice(0, names.length) },
          legend,
        },
        strokeDash: {
          field: 'name',
          type: 'nominal',
          scale: { domain: names, range: names.map((name) => (dashed.has(name) ? [5, 4] : [1, 0])) },
          legend,
        },
      },
    })),
  };
  const svg = await new View(parse(compile(spec).spec), { renderer: 'none' }).toSVG();
  return `${rounded(svg).replace('>', `><title>${escaped(title)}</title>`)}\n`;
}

const scaleOf = ({ scale }: Axis, base: number) => (scale === 'log' ? { type: 'log' as const, base } : { zero: true });

/** On a logarithmic x axis a tick at every point, as long as these are few; on y at 1, 2 and 5 times the powers of ten. */
function ticksOf({ x, y, series }: Panel, axis: 'x' | 'y'): object {
  if ((axis === 'x' ? x : y).scale !== 'log') return {};
  const values = series.flatMap(({ points }) => points.map((point) => point[axis === 'x' ? 0 : 1]));
  const powers = Array.from({ length: 31 }, (_, k) => 10 ** (k - 15));
  const round = powers.flatMap((power) => [power, 2 * power, 5 * power]);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const at = [...new Set(values)];
  const ticks =
    axis === 'x' && at.length <= 16 ? at : round.filter((value) => value >= low / 2.5 && value <= 2.5 * high);
  return { values: ticks, labelExpr: "format(datum.value, ',.6~g')", labelOverlap: true, labelFlush: false };
}

const escaped = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');

/** Coordinates to a hundredth of a pixel. */
const rounded = (svg: string): string =>
  svg.replace(/\d+\.\d{3,}(e-\d+)?/g, (number) => `${Number(Number(number).toFixed(2))}`);
