import { attach } from './operations/attach.ts';
import { listEvents } from './operations/events.ts';
import { closeHandle, createHandle, getHandle, getUsage, listHandles, updateHandle } from './operations/handles.ts';
import { resizeTerminal, writeStdin } from './operations/input.ts';
import { renewLease } from './operations/leases.ts';
import { getLiveness, getMetrics, getNode, getReadiness } from './operations/node.ts';
import type { Operation } from './operations/operation.ts';
import { readStderr, readStdout } from './operations/output.ts';
import { getProblem } from './operations/problems.ts';
import { sendSignal, terminate } from './operations/signals.ts';
import { poll, waitid } from './operations/waits.ts';
import { createWatch, deleteWatch, getWatch, listWatches } from './operations/watches.ts';

/** Every operation of the API, in the order of the OpenAPI document. */
export const operations: readonly Operation[] = [
  listHandles,
  createHandle,
  getHandle,
  updateHandle,
  closeHandle,
  renewLease,
  getUsage,
  waitid,
  poll,
  sendSignal,
  terminate,
  readStdout,
  readStderr,
  writeStdin,
  resizeTerminal,
  attach,
  listEvents,
  listWatches,
  createWatch,
  getWatch,
  deleteWatch,
  getNode,
  getMetrics,
  getLiveness,
  getReadiness,
  getProblem,
];
