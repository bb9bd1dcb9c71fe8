/** Times travel as integer nanoseconds, which a JavaScript number cannot hold: a single one is a text here. */
export type Ns = string | number;

export const ms = (ns: Ns): number => Number(ns) / 1e6;
export const seconds = (ns: Ns): number => Number(ns) / 1e9;

/** Exact microseconds between two times. */
export const microsBetween = (start: Ns, end: Ns): number => Number(BigInt(end) - BigInt(start)) / 1e3;

export const RANGES: [from: string, label: string][] = [
  ['15m', 'Last 15 minutes'],
  ['1h', 'Last hour'],
  ['6h', 'Last 6 hours'],
  ['24h', 'Last 24 hours'],
  ['7d', 'Last 7 days'],
  ['30d', 'Last 30 days'],
];

const part = (options: Intl.DateTimeFormatOptions) => new Intl.DateTimeFormat('en-GB', options);
const HOUR_MINUTE = part({ hour: '2-digit', minute: '2-digit' });
const HOUR_MINUTE_SECOND = part({ hour: '2-digit', minute: '2-digit', second: '2-digit' });
const DAY = part({ day: 'numeric', month: 'short' });
const FULL = part({ day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' });

export const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
export const clockText = (at: number): string => HOUR_MINUTE_SECOND.format(at);
export const clockMillis = (at: number): string => `${clockText(at)}.${String(Math.floor(at % 1000)).padStart(3, '0')}`;
export const dayText = (at: number): string => DAY.format(at);
export const fullText = (at: number): string => FULL.format(at).replace(',', '');

/** How a moment reads on an axis that spans so many milliseconds. */
export function axisText(at: number, span: number): string {
  if (span > 3 * 86_400_000) return dayText(at);
  if (span > 6 * 3_600_000 && HOUR_MINUTE.format(at) === '00:00') return dayText(at);
  return span < 10 * 60_000 ? clockText(at) : HOUR_MINUTE.format(at);
}

/** What the range is called: a preset's name, or its two ends. */
export function rangeText(from: string, to: string): string {
  if (!to) return RANGES.find(([value]) => value === (from || '1h'))?.[1] ?? `Last ${from.replace(/^(\d+)d$/, '$1 days')}`;
  const [start, end] = [Date.parse(from), Date.parse(to)];
  if (Number.isNaN(start) || Number.isNaN(end)) return `${from} – ${to}`;
  const oneDay = dayText(start) === dayText(end);
  return `${fullText(start)} – ${oneDay ? HOUR_MINUTE.format(end) : fullText(end)}`;
}
