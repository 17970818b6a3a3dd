import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Skipped } from '../measure.ts';
import { debian } from './debian.ts';
import type { Candidate } from './peer.ts';

/** Debian's interpreter, which its packages are built for. */
const PYTHON = '/usr/bin/python3';
const LISTENER = join(import.meta.dirname, 'supervisord-listener.py');
const WARM_UP = 1;

/** Debian's package, unpacked. Each run has its own supervisord, which its event listener ends. */
export const supervisord: Candidate = {
  name: 'supervisord',
  by: 'event listener',
  atLeast: 20,
  // Each exit takes one or two seconds: it waits for the next turn of supervisord's loop.
  samples: { whole: 30, quick: 4 },
  async start({ scene, child, file }) {
    if (!existsSync(PYTHON)) throw new Skipped(`it needs ${PYTHON}`);
    const directory = scene.path('supervisord');
    mkdirSync(directory);
    await debian(scene, 'unpack', directory, 'supervisor', 'python3-pkg-resources');
    const run = (...args: string[]): Promise<string> =>
      scene.run(
        'env',
        `PYTHONPATH=${directory}/usr/lib/python3/dist-packages`,
        PYTHON,
        `${directory}/usr/bin/supervisord`,
        ...args,
      );
    const measure = async (count: number): Promise<number[]> => {
      const result = scene.path('result');
      const listener = `${PYTHON} ${LISTENER} ${file} ${count} ${WARM_UP} ${result}`;
      const configuration = scene.path('supervisord.conf');
      writeFileSync(configuration, configurationOf(directory, `${child} stamp ${file}`, listener));
      await run('--nodaemon', '--silent', '--configuration', configuration);
      if (!existsSync(result)) throw new Error('the event listener of supervisord did not finish');
      return JSON.parse(readFileSync(result, 'utf8')) as number[];
    };
    return { version: (await run('--version')).trim(), measure };
  },
};

function configurationOf(directory: string, program: string, listener: string): string {
  return `
[unix_http_server]
file=${directory}/socket

[supervisord]
logfile=${directory}/log
childlogdir=${directory}
pidfile=${directory}/pid

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://${directory}/socket

[eventlistener:listener]
command=${listener}
events=PROCESS_STATE_EXITED
autorestart=false

[program:child]
command=${program}
autostart=false
autorestart=false
startsecs=0
`;
}
