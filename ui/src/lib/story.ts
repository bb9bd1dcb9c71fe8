/** One request as a tree in time: who called whom, when each began and how long it took. */
import { eventState, type OpsEvent, type State } from './shapes';
import { microsBetween } from './time';

/** A node of the server's tree: an event and what happened inside it. */
export interface Node {
  event: OpsEvent;
  children?: Node[];
  orphan?: boolean;
}

export interface Step {
  event: OpsEvent;
  depth: number;
  offset: number;
  state: State;
}

/** Kinds that are told beside the waterfall, not in it. */
const ASIDE = new Set(['score', 'breach', 'alert', 'incident', 'guard', 'gate', 'deploy']);

/** The steps in tree order, each after its parent, with its distance in microseconds from the earliest. */
export function steps(tree: Node[]): Step[] {
  const found: Step[] = [];
  const visit = (node: Node, depth: number): void => {
    const shown = !ASIDE.has(node.event.event);
    if (shown) found.push({ event: node.event, depth, offset: 0, state: eventState(node.event) });
    for (const child of node.children ?? []) visit(child, shown ? depth + 1 : depth);
  };
  for (const node of tree) visit(node, 0);
  const first = found.reduce<Step | undefined>((a, b) => (a && BigInt(a.event.ts_ns) <= BigInt(b.event.ts_ns) ? a : b), undefined);
  return found.map((step) => ({ ...step, offset: microsBetween(first!.event.ts_ns, step.event.ts_ns) }));
}
