/** One stream of ticks per tab: after each evaluation the server says so, and the current view reads again. */
import { parse } from './api';

const SILENCE_MS = 60_000;
const RETRY_MS = 5_000;

class Live {
  state = $state<'connecting' | 'live' | 'reconnecting' | 'stale'>('connecting');
  ticks = $state(0);
  #lastTick = 0;

  start(): void {
    const source = new EventSource('/api/live');
    source.onopen = () => this.#alive();
    source.onerror = () => {
      this.state = 'reconnecting';
      if (source.readyState !== EventSource.CLOSED) return;
      setTimeout(() => this.start(), RETRY_MS);
    };
    source.addEventListener('tick', (message) => {
      if (!parse(message.data).now_ns) return;
      this.#alive();
      if (!document.hidden) this.ticks += 1;
    });
  }

  #alive(): void {
    this.state = 'live';
    const mine = (this.#lastTick += 1);
    setTimeout(() => {
      if (mine === this.#lastTick && this.state === 'live') this.state = 'stale';
    }, SILENCE_MS);
  }
}

export const live = new Live();
