import type { Replay } from './replay.ts';

/** How a subscriber gets events beside those of handles that it follows by name. */
export type Mode =
  /** It gets none: it has been narrowed to named handles, and that is for good. */
  | { name: 'narrowed' }
  /** It gets all of the client's past events, and goes live after that. */
  | { name: 'replaying'; replay: Replay }
  /** It gets all of the client's events as they come; the cursor is the one it began after. */
  | { name: 'live'; after: number }
  /** The connection has ended. */
  | { name: 'ended' };
