/** Whether a pattern in which `*` stands for any characters, also none, is the whole of a text. Takes at most their lengths multiplied. */
export function matchesGlob(pattern: string, text: string): boolean {
  let at = 0;
  let next = 0;
  let star = -1;
  let resume = 0;
  while (at < text.length) {
    if (pattern[next] === '*') {
      star = next++;
      resume = at;
    } else if (pattern[next] === text[at]) {
      next++;
      at++;
    } else if (star >= 0) {
      next = star + 1;
      at = ++resume; // the last star takes one character more
    } else return false;
  }
  while (pattern[next] === '*') next++;
  return next === pattern.length;
}
