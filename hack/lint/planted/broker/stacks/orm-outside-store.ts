// reports: lint/style/noRestrictedImports
// @ts-nocheck: never compiled, only linted
import { MikroORM } from '@mikro-orm/postgresql';

/** The same through the ORM. */
export const connect = (): Promise<MikroORM> => MikroORM.init();
