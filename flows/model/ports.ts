import type { PortSpec } from './model.ts';

const NAME = /^(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$/;

/** Reads a port as written: a number, `first-last`, the name of a container port, or `all`. A text that is none says why instead. */
export function parsePort(written: number | string): PortSpec | string {
  if (written === 'all') return { kind: 'all' };
  const match = /^(\d+)(?:-(\d+))?$/.exec(String(written));
  if (match) {
    const first = Number(match[1]);
    const last = match[2] === undefined ? first : Number(match[2]);
    if (first < 1 || last > 65_535) return `${written} is not within 1 to 65535`;
    return first <= last ? { kind: 'range', first, last } : `${written} ends before it begins`;
  }
  const text = String(written);
  // the API server asks for the same: IANA_SVC_NAME, without --, at most 15 characters
  if (NAME.test(text) && !text.includes('--')) return { kind: 'name', name: text };
  return `${JSON.stringify(written)} is neither a port, first-last, all, nor the name of a port (lower case, digits and -, at most 15)`;
}

/** A port as written. */
export function portText(port: PortSpec): string {
  if (port.kind === 'all') return 'all';
  if (port.kind === 'name') return port.name;
  return port.first === port.last ? String(port.first) : `${port.first}-${port.last}`;
}
