// reports: lint/style/noRestrictedImports
// @ts-nocheck: never compiled, only linted
import { createClient } from '@connectrpc/connect';

/** Connect is not loaded in the agent. */
export const client = createClient;
