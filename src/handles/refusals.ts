import { Problem } from '../errors/problem.ts';

export function stale(id: string, how: string): Problem {
  return new Problem('ESTALE', `This handle ${how}: open or spawn a new one.`, { handle: id });
}

export function unwritable(syscall: string): Problem {
  const detail = 'The journal cannot be written, so nothing new is taken on: free space on its disk.';
  return new Problem('ENOSPC', detail, { syscall, retry: { afterMs: 1000 } });
}

export function unknownHandle(id: string): Problem {
  return new Problem('EBADF', 'You have no such handle: list yours with GET /v1/handles.', { handle: id });
}

export function outOfDescriptors(): Problem {
  const detail = 'The daemon is out of descriptors: close handles, or raise its limit (RLIMIT_NOFILE).';
  return new Problem('EMFILE', detail, { retry: { afterMs: 1000 } });
}
