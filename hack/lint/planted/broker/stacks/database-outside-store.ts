// reports: lint/style/noRestrictedImports
// @ts-nocheck: never compiled, only linted
import { Client } from 'pg';

/** A query in a place where nobody looks for one. */
export const connect = (): Client => new Client();
