"""Emulates the descriptor store of a service manager.

store.py keep NOTIFY CONTROL    stores the descriptors sent to NOTIFY, prints each message, and gives all of them to each client of CONTROL
store.py give CONTROL CMD…      takes the stored descriptors, and executes CMD with them (sd_listen_fds(3))
"""
import os, select, socket, sys


def keep(notify, control):
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams.bind(notify)
    asked = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    asked.bind(control)
    asked.listen()
    kept = []
    print('ready', flush=True)
    while True:
        for ready in select.select([datagrams, asked, sys.stdin], [], [])[0]:
            if ready is sys.stdin:
                return
            if ready is asked:
                peer, _ = asked.accept()
                names = ':'.join(name for name, _ in kept)
                socket.send_fds(peer, [(names or '-').encode()], [fd for _, fd in kept])
                peer.close()
                continue
            data, fds, _, _ = socket.recv_fds(datagrams, 4096, 4)
            lines = dict(line.split('=', 1) for line in data.decode().splitlines())
            name = lines.get('FDNAME')
            if 'FDSTOREREMOVE' in lines:
                for entry in [entry for entry in kept if entry[0] == name]:
                    os.close(entry[1])
                    kept.remove(entry)
            elif 'FDSTORE' in lines:
                kept.extend((name, fd) for fd in fds)
            print(' '.join(f'{key}={value}' for key, value in lines.items()), flush=True)


def give(control, *command):
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.connect(control)
    data, fds, _, _ = socket.recv_fds(peer, 65536, 200)
    peer.close()
    high = [os.dup2(fd, 500 + at) for at, fd in enumerate(fds)]
    for at, fd in enumerate(high):
        os.dup2(fd, 3 + at, inheritable=True)
        os.close(fd)
    for fd in range(3 + len(fds), 500):
        try:
            os.close(fd)
        except OSError:
            pass
    if fds:
        os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=data.decode())
    os.execvp(command[0], command)


{'keep': keep, 'give': give}[sys.argv[1]](*sys.argv[2:])
