import { isIP } from 'node:net';

/** Types of records that hold addresses (RFC 1035 §3.2.2, RFC 3596 §2.1). */
export const RECORD_TYPES = { A: 1, AAAA: 28 } as const;
/** Names of the results of a question that are seen in practice (RFC 1035 §4.1.1). */
const RESULTS: readonly string[] = ['NOERROR', 'FORMERR', 'SERVFAIL', 'NXDOMAIN', 'NOTIMP', 'REFUSED'];
/** Recursion desired (RFC 1035 §4.1.1). */
const RECURSE = 0x0100;
const INTERNET = 1;
const HEADER_BYTES = 12;

/** An answer of a DNS server. */
export interface DnsAnswer {
  /** `NOERROR`, `NXDOMAIN`, … */
  readonly result: string;
  readonly addresses: readonly string[];
}

/** A question about one name. Throws when a part of the name is empty or longer than 63 bytes (RFC 1035 §2.3.4). */
export function encodeQuestion(id: number, name: string, type: keyof typeof RECORD_TYPES): Buffer {
  const header = Buffer.alloc(HEADER_BYTES);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(RECURSE, 2);
  header.writeUInt16BE(1, 4); // one question
  const labels = name
    .replace(/\.$/, '')
    .split('.')
    .map((label) => {
      const bytes = Buffer.from(label);
      if (bytes.length < 1 || bytes.length > 63) throw new Error(`${JSON.stringify(name)} is no DNS name`);
      return Buffer.concat([Buffer.from([bytes.length]), bytes]);
    });
  return Buffer.concat([header, ...labels, Buffer.from([0, 0, RECORD_TYPES[type], 0, INTERNET])]);
}

/** Reads an answer; records that hold no address (aliases on the way) are passed over. Throws `RangeError` when it is cut off. */
export function decodeAnswer(message: Buffer): DnsAnswer {
  const code = message.readUInt16BE(2) & 0xf;
  let at = HEADER_BYTES;
  for (let left = message.readUInt16BE(4); left > 0; left--) at = afterName(message, at) + 4;
  const addresses: string[] = [];
  for (let left = message.readUInt16BE(6); left > 0; left--) {
    at = afterName(message, at);
    const type = message.readUInt16BE(at);
    const length = message.readUInt16BE(at + 8);
    const data = message.subarray(at + 10, at + 10 + length);
    const address = addressOf(type, data);
    if (isIP(address) !== 0) addresses.push(address);
    at += 10 + length;
  }
  return { result: RESULTS[code] ?? `RCODE ${code}`, addresses };
}

/** Names end with a zero or with a pointer to one told before (RFC 1035 §4.1.4). */
function afterName(message: Buffer, from: number): number {
  for (let at = from; ; ) {
    const length = message.readUInt8(at);
    if (length === 0) return at + 1;
    if (length >= 0xc0) return at + 2;
    at += length + 1;
  }
}

function addressOf(type: number, data: Buffer): string {
  if (type === RECORD_TYPES.A) return [...data].join('.');
  if (type === RECORD_TYPES.AAAA)
    return (data.toString('hex').match(/.{4}/g) ?? []).map((part) => part.replace(/^0{1,3}/, '')).join(':');
  return '';
}
