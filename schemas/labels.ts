import { z } from 'zod';
import { boundedRecord } from './bounded.ts';
import { cString } from './common.ts';
import { MOST_LABELS } from './vocabulary.ts';

const labelKey = z
  .string()
  .regex(
    /^[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?$/,
    'must be letters, digits, and . _ / - within, at most 128',
  );
const labelValue = cString.max(256);

/** Labels of a request. Registered and not copied by `meta`, so that the bound stays. */
const labelsOf = <V extends z.ZodType>(value: V, facts: { id: string; description: string }) =>
  boundedRecord(z.record(labelKey, value), { most: MOST_LABELS, message: `at most ${MOST_LABELS} labels` }).register(
    z.globalRegistry,
    { ...facts, maxProperties: MOST_LABELS },
  );

export const Labels = labelsOf(labelValue, {
  id: 'Labels',
  description: `Names and values that the client chooses, at most ${MOST_LABELS}.`,
});
export const LabelChanges = labelsOf(labelValue.nullable(), {
  id: 'LabelChanges',
  description: 'Labels to set. Null removes a label.',
});

/** Labels of an answer. */
export const labelsView = z
  .record(z.string(), z.string())
  .meta({ description: 'The names and values that the client chose.', examples: [{ job: '42' }] });

/** `k=v`, split at the first `=`. */
const labelFilter = z
  .string()
  .regex(/^[^=]+=/, 'must be key=value')
  .max(400)
  .transform((text): [string, string] => [text.slice(0, text.indexOf('=')), text.slice(text.indexOf('=') + 1)]);

/** The labels that a query asks for, all of which must fit. */
export const labelFilters = z.array(labelFilter).max(MOST_LABELS, `at most ${MOST_LABELS} labels`).default([]);
