"""Child processes that end with us, whatever ends us, and ports for them to listen on.

The demo, the tests and the benches start Kafka and workers. A child that outlives its parent would hold ports, memory
and group memberships of the next run, so on Linux the kernel kills it as soon as its parent is gone, kill -9 included.
macOS has no such thing: there a child outlives a parent that was killed, and only that.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.errors import Unavailable

# Above 32768 Linux picks the local ports of outgoing connections. A client that retries a port there while its server
# is down sooner or later connects to itself, and the server cannot bind again.
_PORTS = range(20_000, 32_000)

# Runs between fork and the program: asks for SIGKILL at the parent's end (1 is PR_SET_PDEATHSIG, kept over exec), then
# becomes the program. A `preexec_fn` could do the same, but may deadlock when the parent has threads. The parent may
# have ended before the question was put. Python ignores SIGPIPE and SIGXFSZ, and exec would hand that on.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
os.execvp(sys.argv[2], sys.argv[2:])
"""

# The kernel means the thread that forked when it says parent. This one lives as long as the process.
_KEEPER = ThreadPoolExecutor(1, "spawn")


def spawn(
    args: Sequence[str], log: Path | None, env: Mapping[str, str] | None = None, pass_fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a program that ends with us. May be called from any thread, also one that ends soon.

    Its output is appended to `log`, or goes where ours goes. It reads nothing, and Ctrl-C in the terminal reaches us only, so that
    we can end our children in good order. `env` is added to our own environment, `pass_fds` are open files that it shares with us.
    """
    program = shutil.which(args[0])
    if program is None:
        raise FileNotFoundError(args[0])
    command = [program, *args[1:]]
    if sys.platform == "linux":
        command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
    if threading.current_thread() is threading.main_thread():
        return _popen(command, log, env, pass_fds)
    return _KEEPER.submit(_popen, command, log, env, pass_fds).result()


def _popen(
    command: list[str], log: Path | None, env: Mapping[str, str] | None, pass_fds: Sequence[int]
) -> subprocess.Popen[bytes]:
    with log.open("ab") if log else contextlib.nullcontext() as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            env={**os.environ, **(env or {})},
            pass_fds=pass_fds,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], patience: float) -> int:
    """Ask the process to end, kill it after `patience` seconds, and return its exit code."""
    process.terminate()
    process.send_signal(signal.SIGCONT)  # a stopped process hears SIGTERM only once it goes on
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # like servers: old connections do not count
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port(preferred: int | None = None) -> int:
    """`preferred` if it is free on loopback, else another one, at random so that parallel runs seldom collide."""
    tries = random.sample(_PORTS, 200)
    for port in tries if preferred is None else [preferred, *tries]:
        if is_free(port):
            return port
    raise Unavailable(f"no free port found between {_PORTS.start} and {_PORTS.stop} on 127.0.0.1")
