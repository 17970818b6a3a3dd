/** Where the daemon is between its first listening socket and its end. */
export type State = 'serving' | 'rehearsing' | 'upgrading' | 'failing' | 'stopping';

/** What moves it. */
export type ServiceEvent =
  /** A signal asks it to stop. */
  | 'stop'
  /** Its main program has ended. */
  | 'main ended'
  /** SIGHUP asks for an upgrade in place. */
  | 'upgrade'
  /** The rehearsal of the upgrade failed, or did not. */
  | 'refused'
  | 'accepted'
  /** An exception that nothing caught. */
  | 'fault';

/** The next state; `null` where the event changes nothing; `exit` where the process ends at once. */
type Next = State | null | 'exit';

const transitions: Record<State, Record<ServiceEvent, Next>> = {
  serving: {
    stop: 'stopping',
    'main ended': 'stopping',
    upgrade: 'rehearsing',
    refused: null,
    accepted: null,
    fault: 'failing',
  },
  // It goes on to serve meanwhile.
  rehearsing: {
    stop: 'stopping',
    'main ended': 'stopping',
    upgrade: null,
    refused: 'serving',
    accepted: 'upgrading',
    fault: 'failing',
  },
  upgrading: {
    stop: 'stopping',
    'main ended': 'stopping',
    upgrade: null,
    refused: null,
    accepted: null,
    fault: 'failing',
  },
  // A new image takes the processes over.
  failing: {
    stop: 'stopping',
    'main ended': 'stopping',
    upgrade: null,
    refused: null,
    accepted: null,
    fault: 'failing',
  },
  // Asked twice, it does not wait for its children and clients.
  stopping: { stop: 'exit', 'main ended': null, upgrade: null, refused: null, accepted: null, fault: 'exit' },
};

/** Returns what an event leads to. */
export const next = (state: State, event: ServiceEvent): Next => transitions[state][event];
