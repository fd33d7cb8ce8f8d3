/** Distance in pixels from the end that counts as the end for a reader who scrolls down while text arrives. */
const NEAR = 100;

/**
 * Keeps the end of a growing element in view, until the reader scrolls up. Scrolling back to the end resumes it.
 *
 * @param {HTMLElement} element element that scrolls
 * @param {EventTarget} [source] target of its scroll events
 * @returns {() => void} function to call when the element has grown
 */
export function follow(element, source = element) {
  let follows = true;
  let top = 0;
  source.addEventListener('scroll', () => {
    const { scrollTop, scrollHeight, clientHeight } = element;
    const left = scrollHeight - scrollTop - clientHeight;
    // A text that becomes shorter moves up as well, but stays at its end.
    if (scrollTop < top) follows = left < 2;
    else if (left < NEAR) follows = true;
    top = scrollTop;
  });
  return () => {
    if (follows) element.scrollTop = element.scrollHeight;
  };
}
