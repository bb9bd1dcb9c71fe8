/** Every page: its address, its title, the navigation entry that it belongs to, and whether a time range applies. */
import type { Component } from 'svelte';
import Alerts from './Alerts.svelte';
import Flywheel from './Flywheel.svelte';
import Incident from './Incident.svelte';
import Incidents from './Incidents.svelte';
import Limits from './Limits.svelte';
import Logs from './Logs.svelte';
import Quality from './Quality.svelte';
import Request from './Request.svelte';
import Signals from './Signals.svelte';

interface Page {
  path: string;
  title: string;
  section: string;
  component: Component;
  ranged: boolean;
}

const page = (path: string, title: string, component: Component, { section = path, ranged = true } = {}): Page => ({
  path,
  title,
  section,
  component,
  ranged,
});

export const PAGES: Page[] = [
  page('/', 'Signals', Signals),
  page('/logs', 'Logs', Logs),
  page('/requests/', 'Request', Request, { section: '/logs', ranged: false }),
  page('/quality', 'Quality', Quality),
  page('/limits', 'Limits', Limits),
  page('/alerts', 'Alerts', Alerts),
  page('/incidents', 'Incidents', Incidents, { ranged: false }),
  page('/incidents/', 'Incident', Incident, { section: '/incidents', ranged: false }),
  page('/flywheel', 'Flywheel', Flywheel, { ranged: false }),
];

/** The page at an address; one whose path ends in a slash takes the rest of the address as its subject. */
export function pageAt(path: string): Page | undefined {
  const holds = (own: string): boolean => own.length > 1 && own.endsWith('/') && path.startsWith(own) && path !== own;
  const exact = path.length > 1 ? path.replace(/\/$/, '') : path;
  return PAGES.find((entry) => entry.path === exact) ?? PAGES.find((entry) => holds(entry.path));
}
