import { z } from 'zod';

/** A name for a handle, in a request. */
export const HandleName = z
  .string()
  .regex(
    /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/,
    'must be 1 to 128 letters, digits and . _ -, and begin with neither dot nor hyphen',
  )
  .meta({
    description: 'A name that no other open handle of the client has. `@` and the name stand for the id in requests.',
    examples: ['build-42'],
  });
