/** Every page: its address, its title, and whether the navigation lists it. */
import type { Component } from 'svelte';
import Logs from './Logs.svelte';
import Request from './Request.svelte';
import Signals from './Signals.svelte';

interface Page {
  path: string;
  title: string;
  section: string;
  component: Component;
  inNavigation: boolean;
}

const page = (path: string, title: string, component: Component, section = path): Page => ({
  path,
  title,
  section,
  component,
  inNavigation: path === section,
});

export const PAGES: Page[] = [
  page('/', 'Signals', Signals),
  page('/logs', 'Logs', Logs),
  page('/requests/', 'Request', Request, '/logs'),
];

/** The page at an address; one whose path ends in a slash takes the rest of the address as its subject. */
export function pageAt(path: string): Page | undefined {
  return PAGES.find((entry) => entry.path === path) ?? PAGES.find(({ path: own }) => own !== '/' && own.endsWith('/') && path.startsWith(own) && path !== own);
}
