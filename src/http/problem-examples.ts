import type { ProblemDocument } from '../../schemas/common.ts';
import { errnos, type ProblemErrno } from '../../schemas/vocabulary.ts';

/** The members of an example besides its errno and status. */
type Example = Partial<ProblemDocument> & { detail: string };

const handle = 'h_3q2-7wEBAgMEBQYHCAkKCw';
const syscall = 'posix_spawn';
const retry = { afterMs: 1000 };
const noResource = { detail: 'The machine is out of a resource that a new process needs. Try again later.', syscall };

const examples: Record<ProblemErrno, Example> = {
  E2BIG: { detail: 'The body exceeds the limit of 4194304 bytes. Send a smaller one.' },
  EACCES: { detail: 'This address requires a token. Send Authorization: Bearer <token>.' },
  EAGAIN: {
    detail: 'No child event is available yet. Retry after 250 ms or subscribe to the events.',
    handle,
    retry: { afterMs: 250, events: `/v1/events?handle=${handle}&since=17` },
  },
  EBADF: { detail: `You have no handle ${handle}. List yours with GET /v1/handles.`, handle },
  ECHILD: { detail: 'The status was collected already. Read the outcome from the handle.', syscall: 'waitid', handle },
  EDQUOT: {
    detail: 'Your quota is 1000 handles on live processes. Close some, or wait for some of their processes to end.',
    retry,
  },
  EEXIST: { detail: 'The name build-42 is in use by another of your handles. Close that, or choose another.', handle },
  EINVAL: {
    detail: 'The body is not valid at /nonbloking: unknown name.',
    errors: [{ path: '/nonbloking', message: 'unknown name' }],
  },
  EIO: { detail: 'The daemon has an internal error. See its log under this request’s id.' },
  EISDIR: { detail: 'The file for stdout is a directory. Name a file.', syscall },
  ELOOP: { detail: 'The path of the program has too many symbolic links.', syscall },
  EMFILE: {
    detail: 'The daemon is out of descriptors. Close connections and handles that are not needed, then retry.',
    retry,
  },
  ENAMETOOLONG: { detail: 'The path of the program is too long.', syscall },
  ENFILE: { ...noResource, retry },
  ENODATA: { detail: 'The stream was not captured. Spawn with "stdout": "capture".' },
  ENOENT: { detail: 'The program does not exist. Check argv[0] and PATH.', syscall },
  ENOEXEC: { detail: 'The program is in no format that the kernel can execute.', syscall },
  ENOMEM: { ...noResource, retry },
  ENOSPC: { detail: 'The journal cannot be written. Free space on its disk.', retry },
  ENOSYS: { detail: 'This kernel does not have the system call. Use a newer one.' },
  ENOTUNIQ: {
    detail: 'Several processes match. Open one of the candidates by its pid.',
    candidates: [
      { pid: 4711, inode: '90210', startedAt: '2026-01-31T12:00:00.000Z', argv: ['sleep', '5'] },
      { pid: 4712, inode: '90211', startedAt: '2026-01-31T12:00:01.000Z', argv: ['sleep', '6'] },
    ],
  },
  ENOTDIR: { detail: 'The working directory is not a directory.', syscall },
  ENXIO: { detail: 'The file for stdout is a FIFO without a reader.', syscall },
  ENOTTY: { detail: 'The process has no terminal. Spawn with "tty".', handle },
  EOPNOTSUPP: { detail: 'The inode of a pidfd needs Linux 6.9. Open the process by its pid alone.' },
  EPERM: { detail: 'The policy does not let you spawn processes. Ask the operator of this daemon.' },
  EPIPE: { detail: 'No process reads this input any more. Read the handle for the outcome.', handle },
  EPROTO: { detail: 'The request is not well-formed HTTP. Send it as RFC 9112 defines.' },
  EROFS: { detail: 'The file for stdout is on a read-only file system.', syscall },
  ESHUTDOWN: { detail: 'The daemon is stopping. Retry when it is back.', retry },
  ESRCH: { detail: 'Process 4711 does not exist.', syscall: 'pidfd_open' },
  ESTALE: { detail: 'The handle was closed. Open or spawn a new one.', handle },
  ETIMEDOUT: {
    detail: 'Process 4711 was killed and has not ended: state D. Wait for it with waitid or poll.',
    handle,
  },
  ETXTBSY: { detail: 'The program is open for writing. Close it first.', syscall },
};

/** The examples of an errno whose meaning depends on the status. */
const ofStatus: Record<string, Example> = {
  '403 EACCES': { detail: 'The program may not be executed by this user.', syscall },
  '422 EINVAL': { detail: 'This Idempotency-Key was used for another request. Use another key.' },
  '503 EAGAIN': { ...noResource, retry },
  '503 ENOENT': {
    detail: 'The state directory of the daemon was removed. Restore it, or send the daemon SIGHUP.',
    retry,
  },
  '404 EPROTO': { detail: 'No problem has this errno. The schema Problem in /openapi.json lists them all.' },
  '406 EPROTO': { detail: 'No acceptable media type is available. Accept application/json or text/event-stream.' },
  '408 EPROTO': { detail: 'The request took too long to arrive. Send it again.' },
  '412 EPROTO': {
    detail: 'The precondition fails, because no resource has an ETag. Leave out If-Match and If-None-Match.',
  },
  '414 EPROTO': { detail: 'The URL exceeds 49152 bytes. Subscribe to many handles with frames.' },
  '415 EPROTO': { detail: 'The body is not application/json in UTF-8. Send it with Content-Type: application/json.' },
  '416 EPROTO': {
    detail: 'The stream does not have these bytes. It has bytes 0 to 811 now. Ask for those, or follow it.',
  },
  '417 EPROTO': { detail: 'The expectation is not supported. Use Expect: 100-continue, or none.' },
  '421 EPERM': {
    detail: 'The daemon does not serve this Host. Use an IP address or localhost, or start it with --allowed-host.',
  },
  '426 EPROTO': {
    detail: 'The WebSocket upgrade lacks Connection: Upgrade. Configure the proxy in front to forward upgrades.',
  },
  '431 EPROTO': { detail: 'The headers exceed 65536 bytes. Send fewer or shorter ones.' },
};

/** Returns an example of the problem with a status and an errno, for the OpenAPI document. */
export function problemExample(status: number, errno: ProblemErrno): ProblemDocument {
  const { detail, ...facts } = ofStatus[`${status} ${errno}`] ?? examples[errno];
  return {
    type: `/problems/${errno}`,
    title: errnos[errno][1],
    status,
    detail,
    instance: '0b9d1c5e-7a55-4c1e-8f4a-0f3a2f9f2a11',
    errno,
    ...facts,
  };
}
