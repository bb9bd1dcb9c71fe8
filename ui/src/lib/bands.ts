/** When each signal was in breach: read from the breach events, which mark every change of a verdict. */
import type { OpsEvent, Reading } from './shapes';
import { seconds } from './time';

export interface Band {
  from: number;
  to: number;
}

/** Bands in seconds by signal group. A reading in breach without an event in view covers its own window. */
export function breachBands(events: OpsEvent[], readings: Reading[], start: number, end: number): Record<string, Band[]> {
  const bands: Record<string, Band[]> = {};
  const open = new Map<string, { group: string; from: number }>();
  const close = (id: string, to: number): void => {
    const begun = open.get(id);
    if (begun && to > begun.from) (bands[begun.group] ??= []).push({ from: Math.max(begun.from, start), to });
    open.delete(id);
  };
  for (const event of events.filter((one) => one.event === 'breach').sort((a, b) => Number(a.ts_ns) - Number(b.ts_ns))) {
    const { id, group, verdict } = event.attributes ?? {};
    if (!id || !group) continue;
    if (verdict !== 'BREACH') close(id, seconds(event.ts_ns));
    else if (!open.has(id)) open.set(id, { group, from: seconds(event.ts_ns) });
  }
  for (const reading of readings) {
    if (reading.verdict !== 'BREACH' || open.has(reading.id)) continue;
    open.set(reading.id, { group: reading.group, from: seconds(reading.window_start_ns) });
  }
  for (const id of [...open.keys()]) close(id, end);
  return bands;
}
