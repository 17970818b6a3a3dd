import type { z } from 'zod';

/**
 * Parses a text frame of a client.
 * @param noFrame the error message for a text that is no frame at all
 * @returns an error message if the frame is not valid
 */
export function parseFrame<Schema extends z.ZodType<object>>(
  schema: Schema,
  text: string,
  noFrame: string,
): z.output<Schema> | string {
  let frame: unknown;
  try {
    frame = JSON.parse(text);
  } catch {
    return noFrame;
  }
  const parsed = schema.safeParse(frame);
  if (parsed.success) return parsed.data;
  const [{ code, path, message }] = parsed.error.issues as [z.core.$ZodIssue];
  if (code === 'unrecognized_keys') return `The frame is not valid: ${message}.`;
  return path.length === 0 ? noFrame : `The frame is not valid at /${path.join('/')}: ${message}.`;
}
