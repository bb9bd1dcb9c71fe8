/** One request as a tree in time: who called whom, when each began and how long it took. */
import { eventState, type OpsEvent, type State } from './shapes';
import { microsBetween } from './time';

export interface Step {
  event: OpsEvent;
  depth: number;
  offset: number;
  state: State;
}

/** Kinds that are told beside the waterfall, not in it. */
const ASIDE = new Set(['score', 'breach', 'alert', 'incident', 'guard', 'gate', 'deploy']);

/** The steps in tree order, each after its parent, siblings by time. A step without a known parent hangs on the root. */
export function steps(events: OpsEvent[]): Step[] {
  const own = events.filter((event) => !ASIDE.has(event.event));
  const sorted = own.toSorted((a, b) => Number(BigInt(a.ts_ns) - BigInt(b.ts_ns)));
  const root = sorted.find((event) => event.event === 'request') ?? sorted[0];
  if (!root) return [];
  const origin = sorted.reduce((least, event) => (BigInt(event.ts_ns) < BigInt(least) ? event.ts_ns : least), root.ts_ns);
  const spans = new Set(own.map((event) => event.span_id).filter(Boolean));
  const found: Step[] = [];
  const done = new Set<OpsEvent>();

  const visit = (event: OpsEvent, depth: number): void => {
    if (done.has(event)) return; // Foreign spans may name each other as parents.
    done.add(event);
    found.push({ event, depth, offset: microsBetween(origin, event.ts_ns), state: eventState(event) });
    for (const child of sorted) {
      const parent = child.parent_span_id && spans.has(child.parent_span_id) ? child.parent_span_id : undefined;
      const mine = event === root ? !parent || parent === event.span_id : parent !== undefined && parent === event.span_id;
      if (child !== root && mine) visit(child, depth + 1);
    }
  };
  visit(root, 0);
  for (const event of sorted) visit(event, 1);
  return found;
}
