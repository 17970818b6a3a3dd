"""
An event listener of supervisord, in the form of its documentation. Starts the program `child` repeatedly, and writes a
JSON list of nanoseconds from each stamp to the notification of the exit. Ends supervisord when it is done or has failed.

usage: supervisord-listener.py STAMP_FILE COUNT WARM_UP RESULT_FILE
"""

import json
import os
import signal
import struct
import sys
import time

from supervisor import childutils

BETWEEN_S = 0.002
# Each exit takes a second or two.
LIMIT_S = 10

stamp_file, count, warm_up, result_file = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
supervisor = childutils.getRPCInterface(os.environ).supervisor


def once():
    supervisor.startProcess("child", False)
    childutils.listener.wait(sys.stdin, sys.stdout)
    # The clock of the child's stamp: CLOCK_MONOTONIC.
    at = time.monotonic_ns()
    with open(stamp_file, "rb") as file:
        (stamp,) = struct.unpack("q", file.read(8))
    childutils.listener.ok(sys.stdout)
    time.sleep(BETWEEN_S)
    return at - stamp


signal.alarm(LIMIT_S * (count + warm_up))
signal.signal(signal.SIGALRM, lambda *_: sys.exit("not told in time"))
try:
    latencies = [once() for _ in range(warm_up + count)][warm_up:]
    with open(result_file, "w") as file:
        json.dump(latencies, file)
finally:
    supervisor.shutdown()
