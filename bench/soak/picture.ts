import { type Chart, colors, pictureOf } from '../figures/chart.ts';
import { linear, logarithmic, type Scale } from '../figures/scale.ts';
import type { Sample } from './sample.ts';

/** Draws the daemon's resource use over time: four charts, one below the other. */
export function soakPicture(samples: readonly Sample[]): string {
  const minutes = samples.map(({ at }) => at / 60);
  const chart = (
    title: string,
    label: string,
    keys: Partial<Record<keyof Sample, string>>,
    scaleOf: (values: number[]) => Scale = linear,
  ): Chart => {
    const palette = Object.values(colors);
    const lines = Object.entries(keys).map(([key, name], index) => ({
      name,
      color: palette[index]!,
      points: samples.map((sample, at) => ({ x: minutes[at]!, y: sample[key as keyof Sample] })),
    }));
    return {
      title,
      x: { label: 'minutes', scale: linear(minutes, 10) },
      y: { label, scale: scaleOf(lines.flatMap(({ points }) => points.map(({ y }) => y))) },
      lines,
    };
  };
  return pictureOf([
    chart('resident memory', 'MiB', { residentMiB: 'VmRSS' }),
    chart('open descriptors', 'descriptors', { descriptors: '/proc/PID/fd' }),
    chart('journal', 'MiB', { journalMiB: 'journal.sqlite and its WAL' }),
    chart('waitid to EAGAIN, under the load', 'µs', { p50Us: 'p50', p99Us: 'p99' }, logarithmic),
  ]);
}
