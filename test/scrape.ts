/** Values by metric with its labels, as a page of metrics has them. */
export type Scrape = ReadonlyMap<string, number>;

/** The text of a page of metrics. */
export async function metricsText(url: string): Promise<string> {
  const response = await fetch(`${url}/metrics`);
  if (response.status !== 200) throw new Error(`${url}/metrics answers ${response.status}`);
  return await response.text();
}

/** Reads a page of metrics; `prefix` is taken off the names. */
export async function scrape(url: string, prefix = 'brokkr_'): Promise<Scrape> {
  const lines = (await metricsText(url)).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  const name = (series: string) => (series.startsWith(prefix) ? series.slice(prefix.length) : series);
  return new Map(lines.map((line) => [name(line.slice(0, line.lastIndexOf(' '))), Number(line.split(' ').at(-1))]));
}
