import type { Event } from '../model/event.ts';

/** The receiving end of a subscriber's frames: a WebSocket, or an event stream. */
export interface Sink {
  /** Reads frames from the client, or leaves them in the network for now. */
  reading?(on: boolean): void;
  /** @param seq of an event's frame; of any other frame, the cursor from which nothing is lost after it */
  send(frame: string, seq?: number): void;
  /** Bytes that wait in this process because the reader does not take them. */
  readonly buffered: number;
  /** Calls back when they have left this process. */
  flushed(callback: () => void): void;
  /** Closes the connection of a slow reader. `since` is the lowest cursor that loses nothing. */
  cut(since: number): void;
}

/** A receiver of live events. */
export interface Follower {
  /** The client whose events it gets if it follows no handle by name; `null` for every client's. */
  readonly scope: string | null;
  offer(event: Event): void;
}

/** The subscriptions to live events. */
export interface Subscriptions {
  followAll(follower: Follower): void;
  leaveAll(follower: Follower): void;
  follow(handle: string, follower: Follower): void;
  leave(handle: string, follower: Follower): void;
}
