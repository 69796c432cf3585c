/** Where a text stops being JSON: line and column from 1. The engine's own message does not always say. */
export function jsonErrorPosition(text: string): { readonly line: number; readonly column: number } {
  let offset = text.length;
  try {
    const end = skipSpace(text, value(text, skipSpace(text, 0)));
    offset = end;
  } catch (error) {
    if (error instanceof Bad) offset = error.offset;
  }
  const before = text.slice(0, offset).split('\n');
  return { line: before.length, column: (before.at(-1)?.length ?? 0) + 1 };
}

class Bad extends Error {
  readonly offset: number;
  constructor(offset: number) {
    super('not JSON');
    this.offset = offset;
  }
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: JSON strings may not contain them (RFC 8259, section 7)
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const ATOM = /(?:-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null)(?![\w.+-])/y;

/** Offset after the value that begins at `at`. */
function value(text: string, at: number): number {
  if (text[at] === '{') return container(text, at, '}', member);
  if (text[at] === '[') return container(text, at, ']', value);
  return token(text, at, text[at] === '"' ? STRING : ATOM);
}

function member(text: string, at: number): number {
  const colon = skipSpace(text, token(text, at, STRING));
  if (text[colon] !== ':') throw new Bad(colon);
  return value(text, skipSpace(text, colon + 1));
}

function container(text: string, start: number, close: string, item: (text: string, at: number) => number): number {
  let at = skipSpace(text, start + 1);
  if (text[at] === close) return at + 1;
  for (;;) {
    at = skipSpace(text, item(text, at));
    if (text[at] === close) return at + 1;
    if (text[at] !== ',') throw new Bad(at);
    at = skipSpace(text, at + 1);
  }
}

function token(text: string, at: number, pattern: RegExp): number {
  pattern.lastIndex = at;
  const match = pattern.exec(text);
  if (!match) throw new Bad(at);
  return at + match[0].length;
}

function skipSpace(text: string, at: number): number {
  let next = at;
  while (next < text.length && ' \t\r\n'.includes(text[next] as string)) next += 1;
  return next;
}
