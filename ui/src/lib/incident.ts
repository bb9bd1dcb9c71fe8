/** An incident as the API tells it, and how its state looks. */
import type { State } from './shapes';
import type { Ns } from './time';

export interface Incident {
  id: string;
  problem_id: string;
  episode_no: number;
  title: string;
  severity: number;
  status: string;
  relation: string;
  matched_by?: string;
  reason?: string;
  fingerprint?: string;
  release?: string;
  started_ns: Ns;
  detected_ns: Ns;
  acknowledged_ns?: Ns | null;
  mitigated_ns?: Ns | null;
  resolved_ns?: Ns | null;
  cancelled_ns?: Ns | null;
  guards?: string[];
  timeline?: { ts_ns: Ns; status: string; text: string }[];
  evidence?: Record<string, any>;
}

const OVER = ['resolved', 'cancelled'];
export const over = (incident: Incident): boolean => OVER.includes(incident.status);

export function incidentState(incident: Incident): State {
  if (over(incident)) return 'ok';
  return incident.status === 'mitigated' ? 'warning' : 'breach';
}

export const ended = (incident: Incident): Ns | null => incident.resolved_ns ?? incident.cancelled_ns ?? null;
export const relation = (incident: Incident): string =>
  incident.relation === 'new' ? 'new problem' : `${incident.relation.replaceAll('_', ' ')}, episode ${incident.episode_no}`;
