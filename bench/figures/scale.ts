/** Maps the values of an axis to positions on it. */
export interface Scale {
  /** @returns a position from 0, the start of the axis, to 1 */
  place(value: number): number;
  ticks: { value: number; label: string }[];
}

/** Readable steps: 1, 2 or 5 times a power of ten. */
const STEPS = [1, 2, 5, 10];

/** A linear scale from zero to a little above the greatest value. */
export function linear(values: readonly number[], most = 6): Scale {
  const greatest = Math.max(...values) || 1;
  const unit = 10 ** Math.floor(Math.log10(greatest / most));
  const step = unit * STEPS.find((one) => unit * one * most >= greatest)!;
  const count = Math.ceil(greatest / step);
  const digits = Math.max(0, -Math.floor(Math.log10(step)));
  return {
    place: (value) => value / (step * count),
    ticks: Array.from({ length: count + 1 }, (_, at) => ({ value: at * step, label: (at * step).toFixed(digits) })),
  };
}

/** A logarithmic scale. Its ends, below and above all values, are 1, 2 or 5 times a power of ten. */
export function logarithmic(values: readonly number[]): Scale {
  const least = Math.min(...values);
  const greatest = Math.max(...values);
  const steps = [];
  for (let unit = 10 ** Math.floor(Math.log10(least)); unit <= greatest; unit *= 10)
    steps.push(unit, 2 * unit, 5 * unit);
  steps.push(10 ** Math.ceil(Math.log10(greatest) + 1e-9));
  const from = steps.findLast((step) => step <= least)!;
  const to = steps.find((step) => step > from && step >= greatest)!;
  const within = steps.filter((step) => step >= from && step <= to);
  const shown = within.length <= 10 ? within : within.filter((step) => Number.isInteger(Math.log10(step)));
  return {
    place: (value) => Math.log(value / from) / Math.log(to / from),
    ticks: shown.map((value) => ({ value, label: `${Number(value.toPrecision(1))}` })),
  };
}

/** A scale of shares from 0 to below 1 on which each further nine has the same width, because the tail matters most. */
export function nines(greatest: number): Scale {
  const width = (share: number): number => -Math.log10(1 - share);
  const all = [0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999];
  return {
    place: (share) => width(share) / width(greatest),
    ticks: all
      .filter((share) => share <= greatest)
      .map((value) => ({ value, label: `${Number((value * 100).toPrecision(5))} %` })),
  };
}
