import { EVENT_ID, type Event, getScalarValue, parseEvents } from 'js-yaml';

/**
 * Where the value of a JSON pointer starts in a text of one document, in UTF-16 units; of the nearest one around it when it is not there.
 * The text must have been parsed without an error before, and have no aliases on the way.
 */
export function offsetOfPointer(text: string, pointer: string): number {
  return offsetsOf(text)(pointer);
}

/** `offsetOfPointer` for many pointers into one text: it is parsed once, and each collection is gone through once. */
export function offsetsOf(text: string): (pointer: string) => number {
  const events = parseEvents(text, {});
  const known = new Map<number, ReadonlyMap<string, Child>>();
  const childrenAt = (at: number) => {
    const children = known.get(at) ?? childrenOf(text, events, at);
    known.set(at, children);
    return children;
  };
  return (pointer) => {
    let at = 1; // the first event opens the document
    let offset = startOf(events[at]);
    for (const segment of pointer.split('/').slice(1)) {
      const found = childrenAt(at).get(segment.replaceAll('~1', '/').replaceAll('~0', '~'));
      if (found === undefined) break;
      at = found.value;
      offset = found.start;
    }
    return offset;
  };
}

/** A member of a collection: the event at which its value starts, and where its key or, in a sequence, itself starts. */
interface Child {
  readonly value: number;
  readonly start: number;
}

/** Members of the collection at an event, by key or by index; none for a scalar. */
function childrenOf(text: string, events: readonly Event[], at: number): ReadonlyMap<string, Child> {
  const children = new Map<string, Child>();
  const collection = events[at];
  if (collection?.type !== EVENT_ID.MAPPING && collection?.type !== EVENT_ID.SEQUENCE) return children;
  let next = at + 1;
  for (let index = 0; events[next]?.type !== EVENT_ID.POP; index++) {
    const start = startOf(events[next]);
    if (collection.type === EVENT_ID.SEQUENCE) {
      children.set(String(index), { value: next, start });
    } else {
      const key = events[next];
      next = after(events, next);
      if (key?.type === EVENT_ID.SCALAR) children.set(getScalarValue(text, key), { value: next, start });
    }
    next = after(events, next);
  }
  return children;
}

/** The event after the node that starts at `at`. */
function after(events: readonly Event[], at: number): number {
  let open = 0;
  let next = at;
  do {
    const type = events[next++]?.type;
    if (type === EVENT_ID.MAPPING || type === EVENT_ID.SEQUENCE) open++;
    else if (type === EVENT_ID.POP) open--;
  } while (open > 0);
  return next;
}

function startOf(event: Event | undefined): number {
  if (event === undefined) return 0;
  if ('valueStart' in event) return event.valueStart;
  return 'start' in event ? event.start : 0;
}
