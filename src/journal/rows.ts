import type { Lifetime, Overdue } from '../model/lifetime.ts';
import {
  type Ending,
  Handle,
  type InputKind,
  type Labels,
  OpenDescription,
  type Output,
  Process,
  type ProcessState,
  type Relation,
  type Remains,
  type Stream,
} from '../model/process.ts';

/** A process, as the tables store it. */
export interface ProcessRow {
  process: number;
  pid: number;
  inode: string | null;
  boot: string;
  started_at: number;
  argv: string;
  relation: Relation;
  state: ProcessState;
  ending: string | null;
  ended_at: number | null;
  lifetime: string | null;
  overdue: string | null;
  remains: string | null;
}

/** A handle with its process, as the tables store them. */
export interface HandleRow extends ProcessRow {
  seq: number;
  id: string;
  client: string;
  description: number;
  nonblocking: number;
  output: number;
  input: InputKind | null;
  name: string | null;
  labels: string;
  created_at: number;
  watch: string | null;
}

const PROCESS_COLUMNS =
  'p.pid, p.inode, p.boot, p.started_at, p.argv, p.relation, p.state, p.ending, p.ended_at, p.lifetime, p.overdue, p.remains';

export const PROCESSES = `SELECT p.id process, ${PROCESS_COLUMNS} FROM processes p`;

export const HANDLE_COLUMNS = `
  SELECT h.*, ${PROCESS_COLUMNS}, o.watch
  FROM handles h JOIN processes p ON p.id = h.process LEFT JOIN opened_by o ON o.handle = h.seq`;

const STREAM_BITS: Record<Stream, number> = { stdout: 1, stderr: 2 };
const ENDED_BIT = 4;

/** Encodes the captured streams of a description, and whether they have ended, in one number. */
export function outputBits({ streams, ended }: Output): number {
  return streams.reduce((bits, stream) => bits | STREAM_BITS[stream], ended ? ENDED_BIT : 0);
}

function outputOf(bits: number): Output {
  const streams = (Object.keys(STREAM_BITS) as Stream[]).filter((stream) => (bits & STREAM_BITS[stream]) !== 0);
  return { streams, ended: (bits & ENDED_BIT) !== 0 };
}

/** Creates the process of a row. */
export function processOf(row: ProcessRow): Process {
  const { pid, inode, relation } = row;
  const process = new Process({
    id: row.process,
    pid,
    inode,
    startedAt: row.started_at,
    argv: JSON.parse(row.argv) as string[],
    relation,
    lifetime: row.lifetime === null ? null : (JSON.parse(row.lifetime) as Lifetime),
    overdue: row.overdue === null ? {} : (JSON.parse(row.overdue) as Overdue),
  });
  process.state = row.state;
  if (row.ending !== null) process.end(JSON.parse(row.ending) as Ending);
  process.endedAt = row.ended_at;
  if (row.remains !== null) process.remains = JSON.parse(row.remains) as Remains;
  return process;
}

/** Creates the objects of a row. With maps, rows share the objects of a process or a description. */
export function handleOf(
  row: HandleRow,
  processes: Map<number, Process> = new Map(),
  descriptions: Map<number, OpenDescription> = new Map(),
): Handle {
  let process = processes.get(row.process);
  if (process === undefined) {
    process = processOf(row);
    processes.set(row.process, process);
  }
  let description = descriptions.get(row.description);
  if (description === undefined) {
    const { description: id, nonblocking, output, input } = row;
    description = new OpenDescription(id, process, null, nonblocking === 1, outputOf(output), input);
    descriptions.set(id, description);
  }
  const { id, client, name, seq, watch } = row;
  const labels = JSON.parse(row.labels) as Labels;
  return new Handle({ id, client, description, name, labels, createdAt: row.created_at, seq, watch });
}
