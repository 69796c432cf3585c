/** The name of an endpoint, or the id of a flow, as part of the names of policies: `kubeApi` is `kube-api`. */
export function policyPart(name: string): string {
  return name.replace(/([a-z0-9])([A-Z])/g, '$1-$2').toLowerCase();
}
