// reports: nothing
// @ts-nocheck: never compiled, only linted
import { Client } from 'pg';

/** Where queries belong. */
export const connect = (): Client => new Client();
