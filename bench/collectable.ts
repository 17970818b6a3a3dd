/**
 * Loaded into a server before its own code: SIGUSR2 has it collect its garbage, and give back what it does not use. Node needs
 * `--expose-gc` for that.
 */
process.on('SIGUSR2', () => gc!({ type: 'major', execution: 'sync', flavor: 'last-resort' }));
