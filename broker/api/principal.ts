/** Whose key a request carries. */
export type Principal =
  | { readonly kind: 'admin'; readonly keyId: string; readonly readOnly: boolean }
  | { readonly kind: 'agent'; readonly keyId: string; readonly readOnly: boolean; readonly agentId: string }
  | { readonly kind: 'generator'; readonly keyId: string; readonly readOnly: boolean; readonly generatorId: string };

/** The id behind an agent's or generator's key, for audit rows and predicates. */
export function actorId(principal: Principal): string | undefined {
  switch (principal.kind) {
    case 'admin':
      return undefined;
    case 'agent':
      return principal.agentId;
    case 'generator':
      return principal.generatorId;
  }
}
