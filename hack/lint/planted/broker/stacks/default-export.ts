// reports: lint/style/noDefaultExport
// @ts-nocheck: never compiled, only linted

export default 1;
