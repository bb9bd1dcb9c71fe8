/** Numbers for people: three significant digits and a unit, always. A missing number is a dash, never a zero. */
export type Maybe = number | null | undefined;

const MISSING = '–';
const known = (value: Maybe): value is number => value !== null && value !== undefined && Number.isFinite(value);
const three = (value: number): string => value.toFixed(Math.abs(value) >= 99.95 ? 0 : Math.abs(value) >= 9.995 ? 1 : 2);

export const count = (value: Maybe): string => (known(value) ? Math.round(value).toLocaleString('en') : MISSING);
export const percent = (ratio: Maybe): string => (known(ratio) ? `${three(ratio * 100)}%` : MISSING);
export const evidence = (value: Maybe): string => (known(value) && value >= 100 ? count(value) : score(value));
export const score = (value: Maybe): string => (known(value) ? value.toFixed(2) : MISSING);
export const times = (value: Maybe): string => (known(value) ? `${three(value)}×` : MISSING);

export function duration(us: Maybe): string {
  if (!known(us)) return MISSING;
  if (us === 0) return '0 ms';
  if (us < 1000) return `${Math.round(us)} µs`;
  if (us < 999_500) return `${three(us / 1e3).replace(/\.0+$/, '')} ms`;
  return us < 120e6 ? `${three(us / 1e6)} s` : span(us / 1e6);
}

/** A length of time in its two largest units. */
export function span(total: Maybe): string {
  if (!known(total)) return MISSING;
  const units: [number, string][] = [[86_400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const first = units.findIndex(([size]) => total >= size);
  if (first < 0) return `${three(total)} s`;
  const [size, name] = units[first]!;
  const whole = Math.floor(total / size);
  const next = units[first + 1];
  const rest = next ? Math.round((total - whole * size) / next[0]) : 0;
  return rest && next ? `${whole} ${name} ${rest} ${next[1]}` : `${whole} ${name}`;
}

export function rate(perSecond: Maybe): string {
  if (!known(perSecond)) return MISSING;
  return `${perSecond >= 10_000 ? `${three(perSecond / 1e3)}k` : three(perSecond)} /s`;
}

export function money(microusd: Maybe): string {
  if (!known(microusd)) return MISSING;
  const dollars = microusd / 1e6;
  return `$${dollars >= 1 ? dollars.toFixed(2) : Number(dollars.toPrecision(2))}`;
}

const BY_UNIT: Record<string, (value: Maybe) => string> = {
  us: duration,
  ratio: percent,
  '1/s': rate,
  burn: times,
  score,
  microusd: money,
};

/** A value in the unit that a reading names. */
export function quantity(value: Maybe, unit: string): string {
  return (BY_UNIT[unit] ?? ((other: Maybe) => (known(other) ? `${three(other)} ${unit}`.trim() : MISSING)))(value);
}

const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]+/g;

/** One line of foreign text: control characters and text-direction tricks become a space, a long one is cut. */
export function line(text: unknown, limit = 400): string {
  const plain = typeof text === 'string' ? text : JSON.stringify(text) ?? '';
  const shown = plain.slice(0, limit).replace(UNSEEN, ' ');
  return plain.length > limit ? `${shown}…` : shown;
}

export const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);
export const plural = (n: number, noun: string): string => `${count(n)} ${noun}${n === 1 ? '' : 's'}`;
