/**
 * Preloaded into a server: on SIGUSR2 it collects garbage and returns unused memory to the system. Node.js needs
 * `--expose-gc` for this.
 */
process.on('SIGUSR2', () => gc!({ type: 'major', execution: 'sync', flavor: 'last-resort' }));
