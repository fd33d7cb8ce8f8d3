import { parse, View } from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';

export interface Axis {
  /** Name and unit of the axis. */
  readonly title: string;
  /** Scale of the axis: logarithmic with base 2 on x and base 10 on y. Default: linear, starting at 0. */
  readonly scale?: 'log';
}

export interface Series {
  readonly name: string;
  readonly points: readonly (readonly [x: number, y: number])[];
  readonly dashed?: boolean;
}

export interface Panel {
  readonly title: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly series: readonly Series[];
}

/**
 * Okabe and Ito's colour-blind safe palette (Wong 2011, doi 10.1038/nmeth.1618) without yellow, which is faint on
 * white.
 */
const COLOURS = ['#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000'];
/** One legend for both the colours and the dashes of lines. */
const legend = { orient: 'bottom' as const, title: null, columns: 4, symbolType: 'stroke' };
const SIZE = { width: 330, height: 250 };

/**
 * Draws panels side by side as SVG, with Vega-Lite and without a browser. The background is white so that the plot is
 * readable on dark pages. Series of the same name share a colour. Colours are assigned in order of first appearance.
 *
 * @param panels panels, which together have at most 7 different series names
 * @param title alternative text of the image
 */
export async function lineChart(panels: readonly Panel[], title: string): Promise<string> {
  const names = [...new Set(panels.flatMap((panel) => panel.series.map(({ name }) => name)))];
  if (names.length > COLOURS.length)
    throw new Error(`a plot must have at most ${COLOURS.length} series, got ${names.length}`);
  const dashed = new Set(panels.flatMap(({ series }) => series.filter((each) => each.dashed).map(({ name }) => name)));
  const byName = <Value>(range: Value[]) => ({
    field: 'name',
    type: 'nominal' as const,
    scale: { domain: names, range },
    legend,
  });
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
        x: axisOf(panel, 'x', 2),
        y: axisOf(panel, 'y', 10),
        color: byName(names.map((_, i) => COLOURS[i] as string)),
        strokeDash: byName(names.map((name) => (dashed.has(name) ? [5, 4] : [1, 0]))),
      },
    })),
  };
  const svg = await new View(parse(compile(spec).spec), { renderer: 'none' }).toSVG();
  return `${rounded(svg).replace('>', `><title>${escaped(title)}</title>`)}\n`;
}

/** @param base base of the logarithm on a logarithmic axis */
function axisOf(panel: Panel, field: 'x' | 'y', base: number) {
  const { title, scale } = panel[field];
  const own = scale === 'log' ? { type: 'log' as const, base } : { zero: true };
  return { field, type: 'quantitative' as const, title, scale: own, axis: ticksOf(panel, field) };
}

/**
 * Returns the ticks of a logarithmic axis: at every point if x has few points, otherwise at 1, 2 and 5 times the powers
 * of ten.
 */
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

/** Rounds coordinates to a hundredth of a pixel. */
const rounded = (svg: string): string =>
  svg.replace(/\d+\.\d{3,}(e-\d+)?/g, (number) => `${Number(Number(number).toFixed(2))}`);
