/** The state of the daemon between its first listening socket and its end. */
export type State = 'serving' | 'rehearsing' | 'upgrading' | 'failing' | 'stopping';

/** The events that change the state. */
export type ServiceEvent =
  /** A signal requests a stop. */
  | 'stop'
  /** The main program has ended. */
  | 'main ended'
  /** SIGHUP requests an upgrade in place. */
  | 'upgrade'
  /** The rehearsal of the upgrade has failed, or has succeeded. */
  | 'refused'
  | 'accepted'
  /** An uncaught exception. */
  | 'fault';

/** The next state; `null` if the event is ignored; `exit` if the process exits at once. */
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
  // The daemon continues to serve during a rehearsal.
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
  // A new image takes over the processes.
  failing: {
    stop: 'stopping',
    'main ended': 'stopping',
    upgrade: null,
    refused: null,
    accepted: null,
    fault: 'failing',
  },
  // A second stop does not wait for children and clients.
  stopping: { stop: 'exit', 'main ended': null, upgrade: null, refused: null, accepted: null, fault: 'exit' },
};

/** Returns the effect of an event in a state. */
export const next = (state: State, event: ServiceEvent): Next => transitions[state][event];
