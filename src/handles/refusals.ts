import { Problem } from '../errors/problem.ts';
import { OutOfPlace } from '../journal/in-place.ts';

export function stale(id: string, how: string): Problem {
  return new Problem('ESTALE', `This handle ${how}: open or spawn a new one.`, { handle: id });
}

/** @param fault why the journal cannot be written */
export function unwritable(fault: Error | null, syscall?: string): Problem {
  const facts = { ...(syscall !== undefined && { syscall }), retry: { afterMs: 1000 } };
  if (fault instanceof OutOfPlace) {
    const detail =
      'The state directory of the daemon was removed or replaced, so no new handle can be written: restore it, or send the daemon SIGHUP.';
    return new Problem('ENOENT', detail, { ...facts, status: 503 });
  }
  const detail = 'The journal cannot be written, so no new handle can be made: free space on its disk.';
  return new Problem('ENOSPC', detail, facts);
}

export function unknownHandle(id: string): Problem {
  return new Problem('EBADF', 'You have no such handle: list yours with GET /v1/handles.', { handle: id });
}

export function outOfDescriptors(): Problem {
  const detail = 'The daemon is out of descriptors: close handles, or raise its limit (RLIMIT_NOFILE).';
  return new Problem('EMFILE', detail, { retry: { afterMs: 1000 } });
}
