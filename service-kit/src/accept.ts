/** A media type with its version, as it is offered. */
interface Offer {
  readonly type: string;
  readonly version: string;
}

const TEXT: Offer = { type: 'text/plain', version: '0.0.4' };
const OPEN_METRICS: Offer = { type: 'application/openmetrics-text', version: '1.0.0' };

/** Whether a scraper would rather have OpenMetrics than the older text format, by its Accept header (RFC 9110, section 12.5.1). */
export function prefersOpenMetrics(accept = ''): boolean {
  const ranges = accept.toLowerCase().split(',').map(parse);
  return quality(OPEN_METRICS, ranges) > quality(TEXT, ranges);
}

type Range = ReturnType<typeof parse>;

function parse(range: string) {
  const [type = '', ...rest] = range.split(';').map((part) => part.trim());
  const parameters = new Map(
    rest.map((parameter) => {
      const [name = '', value = ''] = parameter.split('=');
      return [name.trim(), value.trim().replace(/^"(.*)"$/, '$1')] as const;
    }),
  );
  return { type, version: parameters.get('version'), weight: Number(parameters.get('q') ?? 1) };
}

/** The weight of the most specific range that an offer is in; 0 if it is in none. */
function quality(offer: Offer, ranges: readonly Range[]): number {
  const fitting = ranges.map((range) => ({ fit: fit(offer, range), weight: range.weight }));
  const closest = Math.max(...fitting.map((range) => range.fit));
  if (closest === 0) return 0;
  return Math.max(...fitting.filter((range) => range.fit === closest).map((range) => range.weight));
}

/** How specific a range is, 1 to 4; 0 if the offer is not in it. Parameters other than the version do not tell our formats apart. */
function fit(offer: Offer, { type, version }: Range): number {
  if (type === offer.type) return version === undefined ? 3 : version === offer.version ? 4 : 0;
  if (type === offer.type.replace(/\/.*/, '/*')) return 2;
  return type === '*/*' ? 1 : 0;
}
