// reports: lint/style/noRestrictedImports
// @ts-nocheck: never compiled, only linted
import { createBroker } from '../broker/broker.ts';

/** The command line talks over the API. */
export const create = createBroker;
