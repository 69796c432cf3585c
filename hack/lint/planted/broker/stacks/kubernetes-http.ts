// reports: lint/style/noRestrictedImports
// @ts-nocheck: never compiled, only linted
import { request } from 'undici';

/** The broker never speaks to a cluster. */
export const get = request;
