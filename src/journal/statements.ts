import type { Handle, Process } from '../model/process.ts';
import type { Change } from './change.ts';
import { outputBits } from './rows.ts';
import type { Moment, Statement } from './statement.ts';
import { terminationStatementsOf } from './termination-rows.ts';
import { watchStatementsOf } from './watch-rows.ts';

/** Returns the statements of a change, with the state that its objects have now. */
export function statementsOf(change: Change, moment: Moment): Statement[] {
  switch (change.write) {
    case 'process':
      return [processStatement(change.process, moment.boot)];
    case 'handle':
      return handleStatements(change.handle);
    case 'description': {
      const { id, process, nonblocking } = change.description;
      const values = [Number(nonblocking), process.id, id];
      return [['UPDATE handles SET nonblocking = ? WHERE process = ? AND description = ?', values]];
    }
    case 'output': {
      const { id, process, output } = change.description;
      const values = [outputBits(output), process.id, id];
      return [['UPDATE handles SET output = ? WHERE process = ? AND description = ?', values]];
    }
    case 'tombstone': {
      const { handle, endedBy, last } = change;
      const { id, client, seq } = handle;
      return [...removal(handle), ['INSERT INTO gone VALUES (?, ?, ?, ?, ?)', [id, client, seq, endedBy, last]]];
    }
    case 'withdrawn':
      return [
        ...removal(change.handle),
        removalOf(change.handle.process),
        ['DELETE FROM keys WHERE handle = ?', [change.handle.id]],
      ];
    case 'placed': {
      const values = [change.handle.seq, change.before];
      return [
        ['UPDATE handles SET seq = ? WHERE seq = ?', values],
        ['UPDATE OR REPLACE labels SET handle = ? WHERE handle = ?', values],
      ];
    }
    case 'unheld end':
      return [removalOf(change.process)];
    case 'settled': {
      const { id, remains } = change.process;
      return [['UPDATE processes SET remains = ? WHERE id = ?', [remains && JSON.stringify(remains), id]]];
    }
    case 'collected':
      return [['INSERT OR IGNORE INTO collected VALUES (?, ?, ?)', [change.process.id, change.client, moment.at]]];
    case 'key': {
      const { client, key, fingerprint, handle, answer } = change.key;
      // An update: the triggers would not run for a replacement.
      const sql = `INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (client, key) DO UPDATE SET
        fingerprint = excluded.fingerprint, handle = excluded.handle, answer = excluded.answer, at = excluded.at`;
      return [[sql, [client, key, fingerprint, handle, answer, moment.at]]];
    }
    case 'event': {
      const { seq, client, handle, type, at, frame } = change.event;
      return [['INSERT INTO events VALUES (?, ?, ?, ?, ?, ?)', [seq, client, handle, type, at, frame]]];
    }
    case 'termination':
    case 'terminated':
      return terminationStatementsOf(change, moment.boot);
    default:
      return watchStatementsOf(change, moment.boot);
  }
}

function processStatement(process: Process, boot: string): Statement {
  const { id, pid, inode, startedAt, argv, relation, state, ending, endedAt, lifetime, overdue, remains } = process;
  return [
    `INSERT INTO processes (id, boot, pid, inode, started_at, argv, relation, state, ending, ended_at, lifetime, overdue, remains)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (id) DO UPDATE SET pid = excluded.pid, inode = excluded.inode, started_at = excluded.started_at,
       relation = excluded.relation, state = excluded.state, ending = excluded.ending,
       ended_at = coalesce(processes.ended_at, excluded.ended_at), lifetime = excluded.lifetime, overdue = excluded.overdue,
       remains = excluded.remains`,
    [
      id,
      boot,
      pid,
      inode,
      startedAt,
      JSON.stringify(argv),
      relation,
      state,
      ending && JSON.stringify(ending),
      endedAt,
      lifetime && JSON.stringify(lifetime),
      lifetime && JSON.stringify(overdue),
      remains && JSON.stringify(remains),
    ],
  ];
}

/** Empty tables get all that exists before the changes that led to it: a handle that already has its seq keeps it. */
function handleStatements({ seq, id, client, description, createdAt, name, labels }: Handle): Statement[] {
  return [
    [
      `INSERT INTO handles VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT (seq) DO UPDATE SET name = excluded.name, labels = excluded.labels, created_at = excluded.created_at
       ON CONFLICT (id) DO UPDATE SET name = excluded.name, labels = excluded.labels, created_at = excluded.created_at`,
      [
        seq,
        id,
        client,
        description.process.id,
        description.id,
        Number(description.nonblocking),
        outputBits(description.output),
        JSON.stringify(labels),
        createdAt,
        name,
        description.input,
      ],
    ],
    ['DELETE FROM labels WHERE handle = ?', [seq]],
    ...Object.entries(labels).map(
      ([key, value]): Statement => ['INSERT INTO labels VALUES (?, ?, ?, ?)', [client, key, value, seq]],
    ),
  ];
}

const UNHELD = 'NOT EXISTS (SELECT 1 FROM handles WHERE process = ?)';

/** Removes a process without a handle. */
function removalOf({ id }: Process): Statement {
  return [`DELETE FROM processes WHERE id = ? AND ${UNHELD}`, [id, id]];
}

/** Removes a handle, and the records that neither another handle nor a deadline needs. */
function removal({ seq, process }: Handle): Statement[] {
  return [
    ['DELETE FROM handles WHERE seq = ?', [seq]],
    ['DELETE FROM labels WHERE handle = ?', [seq]],
    ['DELETE FROM opened_by WHERE handle = ?', [seq]],
    [
      `DELETE FROM processes WHERE id = ? AND ${UNHELD} AND (lifetime IS NULL OR ending IS NOT NULL)`,
      [process.id, process.id],
    ],
    [`DELETE FROM collected WHERE process = ? AND ${UNHELD}`, [process.id, process.id]],
  ];
}
