/** Events as the server stores them: the newest first, without holes that are not told of. */
import { untrack } from 'svelte';
import { parse } from './api';
import type { OpsEvent } from './shapes';

const MOST = 2_000;
const FLUSH_MS = 150;

export class Follow {
  events = $state.raw<OpsEvent[]>([]);
  /** How many came while the reader was busy, and are shown at its word. */
  waiting = $state(0);
  /** How many came too fast to be sent. */
  missed = $state(0);
  ready = $state(false);
  #held: OpsEvent[] = [];
  #timer = 0;

  /** Follow `address()`, nothing where it is empty; show what comes while `shows()`, keep it otherwise. */
  constructor(address: () => string, shows: () => boolean) {
    $effect(() => {
      const target = address();
      this.events = [];
      this.#held = [];
      this.waiting = this.missed = 0;
      this.ready = false;
      if (!target) return;
      const source = new EventSource(target);
      source.addEventListener('ready', () => (this.ready = true));
      source.addEventListener('gap', (message) => (this.missed += parse(message.data).missed ?? 0));
      source.addEventListener('event', (message) => {
        this.#held.push(parse(message.data));
        if (this.#held.length > MOST) this.#held.shift();
        this.#timer ||= window.setTimeout(() => this.#flush(shows()), FLUSH_MS);
      });
      return () => source.close();
    });
    $effect(() => {
      if (shows()) untrack(() => this.#flush(true));
    });
  }

  #flush(show: boolean): void {
    this.#timer = 0;
    if (show && this.#held.length) {
      this.events = [...this.#held.reverse(), ...this.events].slice(0, MOST);
      this.#held = [];
    }
    this.waiting = this.#held.length;
  }
}
