import { BrokkrError } from '#lib/errors.ts';
import { timestampMs } from '../database.ts';

/** Most rows a list answers at once, and the bound of bare lists. */
const MAX_PAGE = 1000;

/** One page of a list ordered by (created_at, id), newest first. */
export interface Page {
  /** Rows to ask the database for: one more than the page holds. */
  readonly fetch: number;
  /** Last row of the page before; undefined on the first page. */
  readonly after: { readonly createdAt: string; readonly id: string } | undefined;
  /**
   * Cuts the rows to the page and tells the token of the next one. Without `limit` a longer list than `MAX_PAGE` throws
   * `page_required`, naming the parameters.
   */
  cut<T extends { readonly created_at: string; readonly id: string }>(
    rows: readonly T[],
  ): { readonly rows: readonly T[]; readonly nextPageToken: string };
}

/** Reads `limit` and `page_token`. Throws `invalid_page_token`. */
export function readPage({ limit, pageToken }: { readonly limit: number; readonly pageToken: string }): Page {
  const paged = limit > 0 || pageToken !== '';
  const size = limit > 0 ? limit : paged ? 100 : MAX_PAGE;
  return {
    fetch: size + 1,
    after: pageToken === '' ? undefined : decodeToken(pageToken),
    cut(rows) {
      if (rows.length <= size) return { rows, nextPageToken: '' };
      if (!paged)
        throw new BrokkrError(
          'page_required',
          `the list has more than ${MAX_PAGE} rows: pass limit (1 to ${MAX_PAGE}) and page_token`,
        );
      const kept = rows.slice(0, size);
      const last = kept.at(-1);
      return { rows: kept, nextPageToken: last ? encodeToken(last) : '' };
    },
  };
}

function encodeToken(row: { readonly created_at: string; readonly id: string }): string {
  return Buffer.from(JSON.stringify([row.created_at, row.id])).toString('base64url');
}

function decodeToken(token: string): { readonly createdAt: string; readonly id: string } {
  try {
    const value: unknown = JSON.parse(Buffer.from(token, 'base64url').toString());
    if (Array.isArray(value) && isTime(value[0]) && isId(value[1])) return { createdAt: value[0], id: value[1] };
  } catch {
    // falls through to the one error
  }
  throw new BrokkrError('invalid_page_token', 'page_token is not one this broker gave out');
}

/** A `timestamptz` as the database prints it. */
function isTime(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?\+00$/.test(value) &&
    !Number.isNaN(timestampMs(value))
  );
}

function isId(value: unknown): value is string {
  return typeof value === 'string' && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(value);
}
