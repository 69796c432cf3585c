/** Longest line of a watch: an object is at most 1.5 MiB in etcd, and JSON with managed fields a few times that. */
const MAX_LINE_BYTES = 8 * 1024 * 1024;

/**
 * Splits a byte stream into lines: give it each chunk, take the lines that are complete by now (without their end, empty ones
 * left out). Holds at most `maxBytes` of an unfinished line and throws a `RangeError` beyond that. An unfinished last line is
 * never returned: a watch cut in the middle of an event has not delivered it.
 */
export function createLineSplitter(maxBytes = MAX_LINE_BYTES): (chunk: Buffer) => string[] {
  let pending: Buffer[] = [];
  let pendingBytes = 0;
  const hold = (part: Buffer) => {
    pendingBytes += part.length;
    if (pendingBytes > maxBytes) throw new RangeError(`line longer than ${maxBytes} bytes`);
    if (part.length > 0) pending.push(part);
  };
  return (chunk) => {
    const lines: string[] = [];
    let start = 0;
    for (let end = chunk.indexOf(0x0a); end !== -1; end = chunk.indexOf(0x0a, start)) {
      hold(chunk.subarray(start, end));
      const line = (pending.length === 1 && pending[0] ? pending[0] : Buffer.concat(pending)).toString('utf8');
      pending = [];
      pendingBytes = 0;
      start = end + 1;
      if (line !== '' && line !== '\r') lines.push(line);
    }
    hold(chunk.subarray(start));
    return lines;
  };
}
