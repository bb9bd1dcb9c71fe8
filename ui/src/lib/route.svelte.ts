/** The address is the state: the page, the time range, the filters and the selection are all in it. */

class Place {
  path = $state(location.pathname);
  search = $state(location.search);
  query = $derived(new URLSearchParams(this.search));

  read(): void {
    this.path = location.pathname;
    this.search = location.search;
  }
}

export const here = new Place();
addEventListener('popstate', () => here.read());

/** The address of a page, keeping the range, with some parameters set (or dropped, with an empty text). */
export function link(path: string, changes: Record<string, string> = {}, keep: string[] = ['from', 'to']): string {
  const query = new URLSearchParams();
  for (const name of keep) if (here.query.get(name)) query.set(name, here.query.get(name)!);
  for (const [name, value] of Object.entries(changes)) value ? query.set(name, value) : query.delete(name);
  const text = query.toString();
  return text ? `${path}?${text}` : path;
}

/** The address of this very view with some parameters changed. */
export function same(changes: Record<string, string>): string {
  return link(here.path, changes, [...here.query.keys()]);
}

export function go(address: string, { replace = false } = {}): void {
  if (address === here.path + here.search) return;
  history[replace ? 'replaceState' : 'pushState'](null, '', address);
  if (!replace) scrollTo(0, 0);
  here.read();
}

/** Follow links inside the app without a page load; everything else stays the browser's. */
export function follow(click: MouseEvent): void {
  const anchor = (click.target as Element).closest?.('a');
  const plain = click.button === 0 && !click.metaKey && !click.ctrlKey && !click.shiftKey && !click.altKey;
  if (!anchor || !plain || click.defaultPrevented || anchor.target || anchor.origin !== location.origin) return;
  if (anchor.pathname.startsWith('/api/')) return;
  click.preventDefault();
  go(anchor.pathname + anchor.search);
}
