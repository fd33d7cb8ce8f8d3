const BYTE = '(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)';

/** Expression of an IPv4 address in dotted decimal. */
export const IPV4 = `${BYTE}(\\.${BYTE}){3}`;
const HEX4 = '[0-9A-Fa-f]{1,4}';

/** IPv6 address: eight groups, or fewer with one `::`. The last two groups may be written as an IPv4 address. */
export const IPV6 = [
  `(${HEX4}:){7}${HEX4}`,
  `(${HEX4}:){6}${IPV4}`,
  ...Array.from({ length: 8 }, (_, before) => {
    const head = before === 0 ? '' : `${HEX4}(:${HEX4}){${before - 1}}`;
    const more = before === 7 ? '' : `(${HEX4}(:${HEX4}){0,${6 - before}})?`;
    return `${head}::${more}`;
  }),
  ...Array.from({ length: 6 }, (_, before) => {
    const head = before === 0 ? '' : `${HEX4}(:${HEX4}){${before - 1}}`;
    return `${head}::(${HEX4}:){0,${5 - before}}${IPV4}`;
  }),
].join('|');
