// reports: nothing
// @ts-nocheck: never compiled, only linted
import { request } from 'undici';

/** Where Kubernetes HTTP belongs. */
export const get = request;
