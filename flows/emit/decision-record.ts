import type { ReachDifference } from '#flows/evaluate/compare.ts';
import { markdownTable } from './text-table.ts';

/** What a decision record is written from. */
export interface DecisionRecord {
  readonly title: string;
  /** YYYY-MM-DD. */
  readonly date: string;
  readonly difference: ReachDifference;
}

/** The stub of a decision record about a change of the network: what becomes and what stops being reachable, and what a person has to add. */
export function decisionRecord({ title, date, difference }: DecisionRecord): string {
  const { changes, onlyBefore, onlyAfter } = difference;
  const section = (heading: string, wanted: 'gained' | 'lost') => {
    const rows = changes
      .filter(({ change }) => change === wanted)
      .map(({ src, dst, protocol, ports, undecidable }) => [src, dst, protocol, undecidable ? `${ports} (undecidable)` : ports]);
    const table = markdownTable({ title: heading, columns: ['Source', 'Destination', 'Protocol', 'Ports'], rows });
    return `### ${heading}\n\n${rows.length === 0 ? 'None.\n' : table}`;
  };
  const apart = [
    ...onlyBefore.map((label) => `- ${label} is gone; nothing about it is compared.\n`),
    ...onlyAfter.map((label) => `- ${label} is new; nothing about it is compared.\n`),
  ];
  return [
    `# ${title}\n`,
    `Date: ${date}\n\nStatus: proposed\n`,
    '## Context\n\nWhy the network has to change, and who asked for it.\n',
    '## Decision\n',
    section('Reachable from now on', 'gained'),
    section('No longer reachable', 'lost'),
    ...(apart.length === 0 ? [] : [apart.join('')]),
    '## Consequences\n\nWhat becomes easier or harder, and how it is undone.\n',
  ].join('\n');
}
