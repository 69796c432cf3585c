// reports: lint/performance/noBarrelFile
// @ts-nocheck: never compiled, only linted
export { connect } from './store.ts';
