/** Editing the query line by clicks: a facet's value is a term such as tool:retrieve, quoted where it must be. */
const TERM = /[\w.]+:\((?:"(?:[^"\\]|\\.)*"|[^()"])*\)|[^\s"]*"(?:[^"\\]|\\.)*"|\S+/g;
const VALUE = /"(?:[^"\\]|\\.)*"|[^\s()"]+/g;

export const terms = (query: string): string[] => query.match(TERM) ?? [];

const quoted = (value: string): string => (/^[\w./@-]+$/.test(value) ? value : `"${value.replace(/["\\]/g, '\\$&')}"`);

/** The values that the query asks of a field, as they are written: of tool:retrieve, or of tool:(retrieve OR search). */
function asked(query: string, field: string): string[] {
  const own = terms(query).find((each) => each.startsWith(`${field}:`));
  return (own?.slice(field.length + 1).match(VALUE) ?? []).filter((value) => value !== 'OR');
}

export const asks = (query: string, field: string, value: string): boolean => asked(query, field).includes(quoted(value));

/** The query with a value of a field added to those that it asks for, or taken out if it is there. */
export function toggled(query: string, field: string, value: string): string {
  const before = asked(query, field);
  const wanted = quoted(value);
  const after = before.includes(wanted) ? before.filter((each) => each !== wanted) : [...before, wanted];
  const all = terms(query);
  const bar = all.findIndex((each) => each.startsWith('|'));
  const pipe = bar < 0 ? [] : all.splice(bar);
  const rest = all.filter((each) => !each.startsWith(`${field}:`));
  const own = after.length > 1 ? `${field}:(${after.join(' OR ')})` : `${field}:${after[0]}`;
  return [...rest, ...(after.length ? [own] : []), ...pipe].join(' ');
}
