import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Measure } from '../measure.ts';
import { pictureOf } from './chart.ts';
import { distributionOf, titleOf } from './distribution.ts';
import { growthChartOf } from './growth.ts';

/**
 * Draws each distribution in a file that is named after its measure, and all growths in `growth.svg`.
 * @returns the file names
 */
export function writeFigures(directory: string, measures: readonly Measure[]): string[] {
  mkdirSync(directory, { recursive: true });
  const pictures = new Map<string, string>();
  for (const measure of measures) {
    const { samples } = measure;
    if (samples !== undefined)
      pictures.set(`${fileNameOf(titleOf(measure.what))}.svg`, pictureOf([distributionOf({ ...measure, samples })]));
  }
  const growths = measures.flatMap(({ growth }) => growth ?? []);
  if (growths.length > 0) pictures.set('growth.svg', pictureOf(growths.map(growthChartOf)));
  for (const [name, picture] of pictures) writeFileSync(join(directory, name), picture);
  return [...pictures.keys()];
}

function fileNameOf(title: string): string {
  return title
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, '-')
    .replaceAll(/^-|-$/g, '');
}
