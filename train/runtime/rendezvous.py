"""How processes that were given an address meet there, before JAX connects them.

JAX's coordinator shares its port: a second run at the same one would reach a first that trains,
and end it; where another program has the port, it dies by a segmentation fault. So process 0
first listens there itself, which only one can; the others tell it who they are and wait for its
word. Then it leaves the port to the coordinator, since between machines no other may be open: for
a millisecond it is nobody's.

Numbers are all that tells who meets: where two runs wait at one address at the same time, what
processes compare once they are connected (the experiment) ends them before they train.
"""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import sys
import time
from multiprocessing.connection import wait
from typing import Any

from train.runtime.errors import RunError

PATIENCE_SECONDS = 3  # with a port in use: the process 0 of an earlier run goes last
QUIET_SECONDS = 2  # of waiting, before it is told
_ANSWER_SECONDS = 5
_ROOM_SECONDS = 10  # for the coordinator to start


def meet(address: str, num_processes: int, own: int, seconds: float) -> None:
    """Returns in all processes once all are there, and in process 0 the port is free again.

    Args:
      address: ``HOST:PORT`` of process 0.
      num_processes: how many there have to be.
      own: which one this is.
      seconds: how long to wait for the others.

    Raises RunError where the port is in use by something else, where two have the same number,
    or other ideas of how many they are, and where some do not come.
    """
    waiting = _Waiting(address, seconds)
    if own == 0:
        with _listen(address) as listener:
            joined = _receive_all(listener, num_processes, waiting)
        for connection in joined:  # only now, or one might find this listener again
            with contextlib.suppress(OSError), connection:
                _tell(connection, all_here=True)
    else:
        _join(num_processes, own, waiting)


class _Waiting:
    """How long this process waits, and what it tells of it."""

    def __init__(self, address: str, seconds: float):
        self.address, self.seconds = address, seconds
        self.began, self._told = time.monotonic(), False

    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self.began + self.seconds - time.monotonic())

    def tell(self, whom: str) -> None:
        """Says once, where it takes more than a moment, whom this process waits for."""
        if not self._told and time.monotonic() > self.began + QUIET_SECONDS:
            self._told = True
            text = f"waiting for {whom} at {self.address}, up to {self.seconds:g} s…"
            print(text, file=sys.stderr, flush=True)


def _listen(address: str) -> socket.socket:
    """Process 0's socket, at all addresses of the machine, as the coordinator's will be."""
    port = _host_and_port(address)[1]
    both = socket.has_dualstack_ipv6()
    patience = time.monotonic() + PATIENCE_SECONDS
    while True:
        family = socket.AF_INET6 if both else socket.AF_INET
        try:
            return socket.create_server(("", port), family=family, dualstack_ipv6=both)
        except OSError as error:
            if both and error.errno == errno.EADDRNOTAVAIL:  # IPv6 is known, but switched off
                both = False
            elif error.errno != errno.EADDRINUSE:
                raise RunError(f"cannot listen at port {port}: {error.strerror}") from error
            elif time.monotonic() > patience:
                raise _in_use(address) from error
        time.sleep(0.1)


def _receive_all(
    listener: socket.socket, num_processes: int, waiting: _Waiting
) -> list[socket.socket]:
    """The connections of all others, once each has said who it is."""
    joined: dict[socket.socket, int] = {}
    while len(joined) < num_processes - 1:
        missing = _named(set(range(1, num_processes)) - set(joined.values()))
        if not waiting.left():
            error = f"{missing} did not come to {waiting.address} within {waiting.seconds:g} s"
            for connection in joined:
                with contextlib.suppress(OSError):
                    _tell(connection, error=error)
            raise RunError(error)
        waiting.tell(missing)
        ready = wait([listener, *joined], timeout=min(0.5, waiting.left()))
        for connection in set(ready) & set(joined):  # no more to say: that process has ended
            del joined[connection]
            connection.close()
        if listener in ready:
            newcomer, _ = listener.accept()
            number = _receive(newcomer, num_processes, set(joined.values()))
            if number is not None:
                joined[newcomer] = number
    return list(joined)


def _receive(newcomer: socket.socket, num_processes: int, known: set[int]) -> int | None:
    """Which process has connected; None, and the connection is closed, where it may not join."""
    newcomer.settimeout(1)  # that a stranger can hold up the others
    try:
        hello = _hear(newcomer, most=200)
        number, count = hello["process"], hello["processes"]
        if type(number) is not int or type(count) is not int:  # True counts as 1
            raise _Stranger
        if count != num_processes:
            _tell(newcomer, error=f"it is one of {num_processes} and this of {count} processes")
        elif number in known:
            _tell(newcomer, error=f"there is a process {number} already")
        elif number in range(1, num_processes):
            _tell(newcomer, joined=True)
            return number
    except (OSError, _Stranger, KeyError, TypeError):
        pass
    newcomer.close()
    return None


def _join(num_processes: int, own: int, waiting: _Waiting) -> None:
    """Waits for process 0, and with it for all."""
    address, problem, strange_until = waiting.address, "no answer", None
    while waiting.left():
        try:
            connection = _connected(address)
        except OSError as error:  # it does not listen yet, or its name is not known yet
            problem, strange_until = error.strerror or str(error), None
            waiting.tell(f"process 0 ({problem})")
            time.sleep(0.1)
            continue
        with connection:
            try:
                _tell(connection, process=own, processes=num_processes)
                answer = _hear(connection)
            except (OSError, _Stranger):
                strange_until = strange_until or time.monotonic() + PATIENCE_SECONDS
                if time.monotonic() > strange_until:
                    raise _in_use(address) from None
                time.sleep(0.1)
                continue
            try:
                if "error" not in answer:
                    # Process 0 ends the waiting; but it may go without a word.
                    connection.settimeout(waiting.left() + _ANSWER_SECONDS)
                    answer = _hear(connection)
            except (OSError, _Stranger):
                raise RunError(f"process 0, at {address}, ended before all had come") from None
        if "error" in answer:
            raise RunError(f"process {own} cannot join process 0 at {address}: {answer['error']}")
        _wait_for_coordinator(address)
        return
    raise RunError(f"process 0 did not come to {address} within {waiting.seconds:g} s ({problem})")


def _wait_for_coordinator(address: str) -> None:
    """Returns once it listens, or soon: JAX, which waits too, looks but once a second."""
    until = time.monotonic() + _ROOM_SECONDS
    while time.monotonic() < until:
        try:
            _connected(address).close()
            return
        except OSError:
            time.sleep(0.01)


def _in_use(address: str) -> RunError:
    host, port = _host_and_port(address)
    return RunError(
        f"port {port} of {host} is in use, by another run or program; choose another for"
        " --coordinator"
    )


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _connected(address: str) -> socket.socket:
    return socket.create_connection(_host_and_port(address), timeout=_ANSWER_SECONDS)


def _tell(connection: socket.socket, **words: Any) -> None:
    connection.sendall(json.dumps(words).encode() + b"\n")


def _hear(connection: socket.socket, most: int = 1000) -> dict[str, Any]:
    """A line of the other side's, at most ``most`` bytes.

    All of it has to come within the connection's timeout. Raises _Stranger where it says something
    else, or nothing.
    """
    line, patience = b"", connection.gettimeout()
    until = time.monotonic() + patience
    try:
        while not line.endswith(b"\n"):
            # A timeout of 0 would be another kind of socket.
            connection.settimeout(max(0.001, until - time.monotonic()))
            some = connection.recv(1)  # and nothing of the next line
            line += some
            if not some or len(line) > most or time.monotonic() > until:
                raise _Stranger
    finally:
        connection.settimeout(patience)
    try:
        words = json.loads(line)
    except (ValueError, RecursionError):
        raise _Stranger from None
    if not isinstance(words, dict):
        raise _Stranger
    return words


def _named(processes: set[int]) -> str:
    some = ", ".join(map(str, sorted(processes)[:8])) + (" …" if len(processes) > 8 else "")
    return f"process {some}" if len(processes) == 1 else f"processes {some}"


class _Stranger(Exception):
    """The other side is no process that wants to meet others."""
