/** What the API answers. Every field may be missing: an older server, a younger page. */
import type { Maybe } from './format';
import type { Ns } from './time';

export type VerdictName = 'OK' | 'BREACH' | 'NO_DATA' | 'INSUFFICIENT';
export type State = 'ok' | 'warning' | 'breach' | 'none' | 'few';

export interface Reading {
  id: string;
  group: string;
  verdict: VerdictName;
  value: number | null;
  threshold: number | null;
  unit: string;
  n: number;
  window_start_ns: Ns;
  window_end_ns: Ns;
  reason: string;
  severe?: boolean;
  held?: boolean;
  labels?: Record<string, string>;
}

export interface OpsEvent {
  ts_ns: Ns;
  event: string;
  event_id?: string;
  service?: string;
  environment?: string;
  release?: string;
  request_id?: string;
  trace_id?: string;
  span_id?: string;
  parent_span_id?: string;
  tenant?: string;
  route?: string;
  severity?: string;
  status_code?: number;
  error?: boolean;
  error_type?: string;
  duration_us?: number;
  time_to_first_token_us?: number;
  model?: string;
  input_tokens?: number;
  output_tokens?: number;
  cost_microusd?: number;
  tool?: string;
  message?: string;
  attributes?: Record<string, any>;
}

export interface Objective {
  id: string;
  group: string;
  measure: string;
  threshold: number;
  direction: string;
  unit: string;
  clear?: Maybe;
}

export interface BreakdownRow {
  key: string;
  n: number;
  rejected: number;
  failed: number;
  upstream: number;
  server_errors: number;
  error_ratio: Maybe;
  latency_us_p50: Maybe;
  latency_us_p95: Maybe;
  few: boolean;
}

export interface Breakdown {
  dimension: string;
  counted: string;
  rows: BreakdownRow[];
  left_out: number;
}

export interface Tier {
  severity: string;
  long_seconds: number;
  short_seconds: number;
  factor: number;
  burn_long: Maybe;
  burn_short: Maybe;
  verdict: VerdictName;
  reason: string;
}

export interface Slo {
  id: string;
  sli: string;
  target: number;
  period_days: number;
  bad: number;
  total: number;
  remaining_ratio: Maybe;
  period_start_ns?: Ns;
  period_end_ns?: Ns;
  calendar?: string | null;
  exhausts_in_seconds: Maybe;
  sentence: string;
  tiers?: Tier[];
  series?: { ts_ns: Ns[]; remaining_ratio: Maybe[] };
}

export interface Signals {
  now_ns: Ns;
  start_ns: Ns;
  end_ns: Ns;
  sentence: string;
  breaching: number;
  signals: number;
  needed: number;
  readings?: Reading[];
  last_known?: Record<string, Reading>;
  totals?: Record<string, Maybe>;
  series?: { step_seconds: number; ts_ns: Ns[]; errors_by_stage?: Record<string, Maybe[]> } & Record<string, any>;
  objectives?: Objective[];
  slos?: Slo[];
}

const STATES: Record<VerdictName, State> = { OK: 'ok', BREACH: 'breach', NO_DATA: 'none', INSUFFICIENT: 'few' };
export const stateOf = (verdict: string | undefined): State => STATES[verdict as VerdictName] ?? 'none';

/** How an event looks in a list: failed, worth a look, or fine. */
export function eventState(event: OpsEvent): State {
  if (event.event === 'breach') return stateOf(event.attributes?.verdict);
  if (event.error || event.severity === 'ERROR' || event.severity === 'FATAL') return 'breach';
  const held = event.attributes?.allowed === false || event.error_type === 'rate_limited';
  return held || event.severity === 'WARN' ? 'warning' : 'ok';
}

/** The name of what ran: what tells one event of a kind from another. */
export function eventName(event: OpsEvent): string {
  const { phase, scorer, name } = event.attributes ?? {};
  const byKind: Record<string, unknown> = { request: event.route, limit: phase, score: scorer, breach: event.attributes?.id };
  const found = String(byKind[event.event] || event.tool || event.model || name || '');
  return found === event.event ? '' : found;
}

/** One line that says what happened. */
export function eventText(event: OpsEvent): string {
  const { input, query, violated, allowed } = event.attributes ?? {};
  if (event.message) return event.message;
  if (violated?.length) return `over ${violated.join(', ')}`;
  if (event.event === 'limit') return allowed === false ? 'rejected' : '';
  return event.error_type || input || query || '';
}
