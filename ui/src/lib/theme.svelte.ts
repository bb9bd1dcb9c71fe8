/** Light or dark: the system's, unless the reader chose. `theme.shown` changes when the resolved colours do. */
const system = matchMedia('(prefers-color-scheme: dark)');
const chosen = (): string | undefined => document.documentElement.dataset.theme;

export const theme = $state({ shown: chosen() ?? (system.matches ? 'dark' : 'light') });

const settle = (): void => {
  theme.shown = chosen() ?? (system.matches ? 'dark' : 'light');
};
system.addEventListener('change', settle);

export function toggleTheme(): void {
  const next = theme.shown === 'dark' ? 'light' : 'dark';
  document.documentElement.dataset.theme = next;
  settle();
  try {
    localStorage.setItem('theme', next);
  } catch {
    // Storage is blocked: the choice lasts as long as the page.
  }
}

/** The resolved colour behind a custom property, optionally made translucent. */
export function colour(name: string, alpha = 1): string {
  const value = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  return alpha === 1 ? value : value.replace(/^rgba?\((\d+), (\d+), (\d+).*\)$/, `rgba($1, $2, $3, ${alpha})`);
}
