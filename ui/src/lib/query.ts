/** Editing the query line by clicks: a facet's value is a term such as tool:retrieve, quoted where it must be. */
const TERM = /[^\s"]*"(?:[^"\\]|\\.)*"|\S+/g;

export const terms = (query: string): string[] => query.match(TERM) ?? [];

export function term(field: string, value: string): string {
  return /^[\w./@-]+$/.test(value) ? `${field}:${value}` : `${field}:"${value.replace(/["\\]/g, '\\$&')}"`;
}

/** The query with the term taken out if it is there, or put in place of another value of the same field. */
export function toggled(query: string, field: string, value: string): string {
  const wanted = term(field, value);
  const present = terms(query);
  if (present.includes(wanted)) return present.filter((each) => each !== wanted).join(' ');
  return [...present.filter((each) => !each.startsWith(`${field}:`)), wanted].join(' ');
}
