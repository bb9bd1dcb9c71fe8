/** The look of every chart: axes, series, objective lines and breach bands, drawn by uPlot in the theme's colours. */
import uPlot from 'uplot';
import type { Band } from './bands';
import { quantity, type Maybe } from './format';
import { colour } from './theme.svelte';
import { axisText } from './time';

export interface Series {
  label: string;
  values: Maybe[];
  colour: string;
  dash?: number[];
  fill?: boolean;
  /** Draw a line over the gaps: for values that are sampled, not for ones that are missing. */
  join?: boolean;
  /** Not measured: no value at rest in the legend. */
  forecast?: boolean;
}

export interface Drawing {
  at: number[];
  series: Series[];
  unit: string;
  from: number;
  to: number;
  stacked?: boolean;
  limit?: { value: number; label: string } | undefined;
  bands?: Band[];
  marks?: { at: number; label: string }[];
  range?: [low: number, high: number] | undefined;
}

const FONT = "11px 'Inter Variable', system-ui, sans-serif";

/** Ticks drop the zeros that a table would keep. */
const tick = (value: number, unit: string): string =>
  quantity(value, unit).replace(/(\.\d*?)0+(?=\D|$)/, '$1').replace(/\.(?=\D|$)/, '');

/** The columns that uPlot draws; stacked series become running sums, a missing part counting as nothing. */
export function columns(drawing: Drawing): uPlot.AlignedData {
  if (!drawing.stacked) return [drawing.at, ...drawing.series.map((one) => one.values as (number | null)[])];
  const total = drawing.at.map(() => 0);
  const sums = drawing.series.map(({ values }) =>
    drawing.at.map((_, i) => {
      total[i]! += values[i] ?? 0;
      return drawing.series.every((one) => one.values[i] == null) ? null : total[i]!;
    }),
  );
  return [drawing.at, ...sums];
}

/** A lone point between gaps has no line to show it, so it is drawn as a dot. */
const alone = (chart: uPlot, index: number): number[] => {
  const values = chart.data[index] as (number | null)[];
  return values.flatMap((v, i) => (v != null && values[i - 1] == null && values[i + 1] == null ? [i] : []));
};

export function options(now: () => Drawing, width: number, height: number, hooks: uPlot.Hooks.Arrays, sync: string): uPlot.Options {
  const { series, unit, stacked } = now();
  const axis = { stroke: () => colour('muted'), font: FONT, ticks: { show: false } };
  return {
    width,
    height,
    padding: [8, 18, 0, 0],
    legend: { show: false },
    cursor: {
      x: true,
      y: false,
      drag: { x: true, y: false, setScale: false },
      points: { size: 6 },
      bind: { dblclick: () => null },
      ...(sync && { sync: { key: sync, setSeries: false } }),
    },
    scales: {
      x: { range: () => [now().from, now().to] },
      y: { range: (_chart, low, high) => heights(now(), low, high) },
    },
    axes: [
      {
        ...axis,
        size: 22,
        gap: 4,
        space: 72,
        grid: { show: false },
        values: (_chart, splits) => splits.map((at) => axisText(at * 1e3, (now().to - now().from) * 1e3)),
      },
      {
        ...axis,
        size: 54,
        gap: 6,
        space: 24,
        grid: { stroke: () => colour('line'), width: 1 },
        values: (_chart, splits) => splits.map((value) => tick(value, unit)),
      },
    ],
    series: [
      {},
      ...series.map((one) => ({
        label: one.label,
        stroke: () => colour(one.colour),
        width: stacked ? 0.5 : 1.5,
        spanGaps: one.join ?? false,
        ...(one.dash && { dash: one.dash }),
        ...(one.fill && { fill: () => colour(one.colour, stacked ? 0.75 : 0.13) }),
        points: { show: true, size: 3, fill: () => colour(one.colour), filter: alone },
      })),
    ],
    ...(stacked && { bands: series.map((one, i) => ({ series: [i + 1, i] as [number, number], fill: () => colour(one.colour, 0.75) })).slice(1) }),
    hooks: { ...hooks, drawClear: [(chart) => drawBands(chart, now())], draw: [(chart) => drawLimit(chart, now())] },
  };
}

function heights({ limit, range }: Drawing, low: number | null, high: number | null): [number, number] {
  if (range) return [Math.min(range[0], low ?? range[0]), Math.max(range[1], high ?? range[1])];
  const top = Math.max(high ?? 0, limit?.value ?? 0);
  return [Math.min(0, low ?? 0), top > 0 ? top * 1.12 : 1];
}

function drawBands(chart: uPlot, { bands = [] }: Drawing): void {
  const { ctx, bbox } = chart;
  for (const band of bands) {
    const left = Math.max(chart.valToPos(band.from, 'x', true), bbox.left);
    const right = Math.min(chart.valToPos(band.to, 'x', true), bbox.left + bbox.width);
    if (right <= left) continue;
    ctx.fillStyle = colour('breach', 0.1);
    ctx.fillRect(left, bbox.top, right - left, bbox.height);
    ctx.fillStyle = colour('breach');
    ctx.fillRect(left, bbox.top, right - left, 2 * uPlot.pxRatio);
  }
}

function drawLimit(chart: uPlot, { limit, marks = [] }: Drawing): void {
  const { ctx, bbox } = chart;
  const ratio = uPlot.pxRatio;
  ctx.save();
  ctx.font = FONT.replace('11px', `${11 * ratio}px`);
  ctx.strokeStyle = colour('breach');
  ctx.lineWidth = ratio;
  if (limit) {
    const y = Math.round(chart.valToPos(limit.value, 'y', true)) + 0.5;
    stroke(ctx, [4 * ratio, 4 * ratio], bbox.left, y, bbox.left + bbox.width, y);
  }
  for (const mark of marks) {
    const x = Math.round(chart.valToPos(mark.at, 'x', true)) + 0.5;
    stroke(ctx, [], x, bbox.top, x, bbox.top + bbox.height);
    label(ctx, mark.label, x + 6 * ratio, bbox.top + bbox.height - 6 * ratio);
  }
  ctx.restore();
}

function stroke(ctx: CanvasRenderingContext2D, dash: number[], x0: number, y0: number, x1: number, y1: number): void {
  ctx.setLineDash(dash);
  ctx.beginPath();
  ctx.moveTo(x0, y0);
  ctx.lineTo(x1, y1);
  ctx.stroke();
}

/** A label on a plate in the panel's colour, so that no line runs through its letters. */
function label(ctx: CanvasRenderingContext2D, text: string, x: number, y: number): void {
  const ratio = uPlot.pxRatio;
  ctx.fillStyle = colour('panel', 0.85);
  ctx.fillRect(x - 2 * ratio, y - 10 * ratio, ctx.measureText(text).width + 4 * ratio, 13 * ratio);
  ctx.fillStyle = colour('breach');
  ctx.textAlign = 'left';
  ctx.textBaseline = 'alphabetic';
  ctx.fillText(text, x, y);
}
