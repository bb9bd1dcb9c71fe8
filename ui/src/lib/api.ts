/** Reading the API. An error is a problem document (RFC 9457) with what to do about it. */

export class Problem extends Error {
  constructor(
    readonly title: string,
    readonly detail: string,
    readonly fix = '',
    readonly status = 0,
    readonly query?: { text: string; start: number; end: number },
  ) {
    super(title);
  }
}

/** A single time such as "ts_ns": 1767603600000000001 is kept exact as a text; a number would round it. */
const TIME = /("[a-z_]*_ns":\s*)(\d{16,19})(?=\s*[,}])/g;
export const parse = (text: string): any => JSON.parse(text.replace(TIME, '$1"$2"'));

const boot: Record<string, unknown> = readBoot();

/** The answer of the first page, which the server put into it, so that the first paint waits for nothing. */
function readBoot(): Record<string, unknown> {
  const text = document.getElementById('boot')?.textContent;
  try {
    return text ? { '/api/signals': parse(text) } : {};
  } catch {
    return {};
  }
}

/** Take an embedded answer, once. */
export function embedded(address: string): unknown {
  const answer = boot[address];
  delete boot[address];
  return answer;
}

export async function get(address: string, signal?: AbortSignal): Promise<any> {
  let response: Response;
  try {
    response = await fetch(address, { headers: { accept: 'application/json' }, ...(signal && { signal }) });
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new Problem('The server does not answer', 'The connection failed.', 'start it with opsloop up');
  }
  const text = await response.text();
  if (response.ok) return parse(text);
  throw problemOf(response.status, text);
}

function problemOf(status: number, text: string): Problem {
  let body: any = {};
  try {
    body = JSON.parse(text);
  } catch {
    // Not ours: a proxy in between answered with a page of its own.
  }
  const query = body.text === undefined ? undefined : { text: body.text, start: body.start ?? 0, end: body.end ?? 0 };
  const known = body.title ? '' : 'Something between this page and the server may have answered.';
  return new Problem(body.title ?? `The server answered ${status}`, body.detail ?? known, body.fix ?? '', status, query);
}

/** An address with the parameters that are set. */
export function address(path: string, parameters: Record<string, string | number | null | undefined>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value) query.set(name, String(value));
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}
