/** Creates an SVG element. @param {string} name @param {Record<string, string | number>} attributes */
export function make(name, attributes) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  return element;
}
