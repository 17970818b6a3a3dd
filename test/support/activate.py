"""Passes listening sockets to a command (sd_listen_fds(3)).

activate.py GATE NAME=unix:PATH|tcp|udp|file… -- CMD…   creates the sockets, prints their addresses, waits for a line from GATE, executes CMD
"""
import os, socket, sys

gate, *rest = sys.argv[1:]
at = rest.index('--')
places, command = rest[:at], rest[at + 1:]
made, names = [], []
for place in places:
    name, _, where = place.partition('=')
    if where.startswith('unix:'):
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        one.bind(where[5:])
        one.listen(100)
        print(where, flush=True)
    elif where == 'file':
        one = open('/dev/null')
    else:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM if where == 'tcp' else socket.SOCK_DGRAM)
        one.bind(('127.0.0.1', 0))
        if where == 'tcp':
            one.listen(100)
        print('tcp:127.0.0.1:%d' % one.getsockname()[1], flush=True)
    made.append(one)
    names.append(name)
open(gate).readline()
high = [os.dup(one.fileno()) for one in made]
high = [fd if fd >= 3 + len(made) else fd for fd in [os.dup2(fd, 200 + index) for index, fd in enumerate(high)]]
for index, fd in enumerate(high):
    os.dup2(fd, 3 + index, inheritable=True)
os.closerange(3 + len(high), 300)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)), LISTEN_FDNAMES=':'.join(names))
os.execvp(command[0], command)
