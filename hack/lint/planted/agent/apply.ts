// reports: lint/style/noRestrictedImports
// @ts-nocheck: never compiled, only linted
import { request } from 'undici';

/** Kubernetes HTTP outside agent/kube. */
export const apply = request;
