// reports: lint/style/noProcessEnv
// @ts-nocheck: never compiled, only linted

/** Configuration behind the back of config.ts. */
export const home = process.env.HOME;
