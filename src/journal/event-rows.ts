import type { SQLInputValue } from 'node:sqlite';
import type { StoredEvent } from '../model/event.ts';
import { type EventFilter, fits } from '../model/event-filter.ts';
import type { Reader } from './reader.ts';

/** The size in characters after which a page of events ends: far more than a thousand usual events have. */
export const PAGE_SIZE = 4 * 2 ** 20;

/** How many rows a filter is applied to in one read. A filter that fits rarely would otherwise read all of them at once. */
const SCAN = 256;

export interface EventQuery extends EventFilter {
  /** `null` for all clients. */
  client: string | null;
  /** The ids of handles of this client, which the caller has checked. All handles where it is missing. */
  handles?: readonly string[];
  /** Exclusive. */
  since: number;
  limit: number;
}

/** Some events in the order of their seqs. */
export interface EventRows {
  events: StoredEvent[];
  /** The seq up to which no other event fits; `null` if none fits beyond either. */
  reached: number | null;
}

/** An SQL condition and its values. */
type Condition = [sql: string, ...values: SQLInputValue[]];

/** Reads the next events that fit a query. There may be none among the rows that one read looks at, and some after them. */
export function eventsOf(reader: Reader, query: EventQuery): EventRows {
  const { since, limit } = query;
  const scope: Condition[] = [['seq > ?', since], ...scopeOf(query)];
  const filter = filterOf(query);
  const end = filter.length === 0 ? undefined : endOfScan(reader, scope);
  if (end !== undefined) scope.push(['seq <= ?', end]);
  let size = 0;
  const isEnough = ({ frame }: StoredEvent): boolean => {
    size += frame.length;
    return size >= PAGE_SIZE;
  };
  const { sql, values } = selectOf('seq, client, handle, type, at, frame', [...scope, ...filter]);
  const stored = reader.all<StoredEvent>(`${sql} LIMIT ?`, [...values, limit], isEnough);
  if (stored.length === limit || size >= PAGE_SIZE) return { events: stored, reached: stored.at(-1)!.seq };
  if (end !== undefined) return { events: stored, reached: end };
  const pending = pendingOf(reader, query).slice(0, limit - stored.length);
  const last = pending.findIndex(isEnough);
  const events = [...stored, ...(last === -1 ? pending : pending.slice(0, last + 1))];
  return { events, reached: last !== -1 || events.length === limit ? events.at(-1)!.seq : null };
}

/** Returns the seq of the last row that a filter may look at in one read; `undefined` if that is all of them. */
function endOfScan(reader: Reader, scope: readonly Condition[]): number | undefined {
  const { sql, values } = selectOf('seq', scope);
  return reader.get<{ seq: number }>(`${sql} LIMIT 1 OFFSET ${SCAN - 1}`, values)?.seq;
}

function selectOf(columns: string, where: readonly Condition[]): { sql: string; values: SQLInputValue[] } {
  const sql = `SELECT ${columns} FROM events WHERE ${where.map(([each]) => each).join(' AND ')} ORDER BY seq`;
  return { sql, values: where.flatMap(([, ...values]) => values) };
}

/** A handle belongs to one client, so the ids are enough, and SQLite uses the index by handle. */
function scopeOf({ client, handles }: EventQuery): Condition[] {
  if (handles !== undefined) return [oneOf('handle', handles)];
  return client === null ? [] : [['client = ?', client]];
}

/** The text of a label in a frame is found faster than its JSON is parsed, and leaves few frames to parse. */
function filterOf({ types, labels = [] }: EventFilter): Condition[] {
  const isLabelled = `instr(frame, ?) > 0 AND EXISTS (SELECT 1 FROM json_each(frame, '$.labels') WHERE key = ? AND value = ?)`;
  return [
    ...(types === undefined ? [] : [oneOf('type', types)]),
    ...labels.map(([key, value]): Condition => {
      return [isLabelled, `${JSON.stringify(key)}:${JSON.stringify(value)}`, key, value];
    }),
  ];
}

/** One value alone lets SQLite read the rows in the order of the index. */
function oneOf(column: string, wanted: readonly string[]): Condition {
  const [only = ''] = wanted;
  if (wanted.length === 1) return [`${column} = ?`, only];
  return [`${column} IN (SELECT value FROM json_each(?))`, JSON.stringify(wanted)];
}

/** Returns the events that fit among those that the tables do not have yet. */
function pendingOf(reader: Reader, query: EventQuery): StoredEvent[] {
  const { client, handles, since } = query;
  return reader
    .pending('event')
    .map(({ event }) => event)
    .filter(
      (event) =>
        event.seq > since &&
        (handles === undefined ? client === null || event.client === client : handles.includes(event.handle)) &&
        fits(event, query),
    );
}
