/** What a page reads: the newest answer, whether one is under way, and what went wrong last. */
import { untrack } from 'svelte';
import { embedded, get, Problem } from './api';
import { live } from './live.svelte';
import { here } from './route.svelte';

export class Resource<T> {
  data = $state.raw<T | null>(null);
  problem = $state.raw<Problem | null>(null);
  loading = $state(true);
  readAt = $state(0);
  #running: AbortController | null = null;
  #address = '';

  /** Read `address()` now and whenever it changes; again at each tick while the view ends at now and `follows`. */
  constructor(address: () => string, follows: () => boolean = () => true) {
    $effect(() => {
      const target = address();
      if (!here.query.get('to')) void live.ticks;
      untrack(() => {
        if (target !== this.#address || follows()) void this.#read(target);
      });
    });
    $effect(() => () => this.#running?.abort());
  }

  async #read(address: string): Promise<void> {
    const moved = address !== this.#address;
    if (!moved && this.#running) return; // A tick never cancels a slow answer, or it would never come.
    this.#running?.abort();
    this.#address = address;
    const given = embedded(address);
    if (given) return this.#take(given as T);
    const running = (this.#running = new AbortController());
    if (moved) this.loading = true;
    try {
      const answer = await get(address, running.signal);
      if (!running.signal.aborted) this.#take(answer);
    } catch (cause) {
      if (running.signal.aborted) return;
      if (!(cause instanceof Problem)) throw cause;
      this.problem = cause;
      if (moved) this.data = null;
    } finally {
      if (!running.signal.aborted) {
        this.loading = false;
        this.#running = null;
      }
    }
  }

  #take(answer: T): void {
    this.data = answer;
    this.problem = null;
    this.readAt = Date.now();
    this.loading = false;
  }
}
