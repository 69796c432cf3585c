// reports: lint/style/noRestrictedImports
// @ts-nocheck: never compiled, only linted
import { ManifestSchema } from '#proto/brokkr/v1/content_pb.js';

/** flows is a pure library. */
export const schema = ManifestSchema;
