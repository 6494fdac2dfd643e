"""A meeting of the processes of a launch before JAX joins them, and news of their ends.

JAX's own service answers every fault of a launch with SIGABRT and a C++ stack, and collectives
wait for ever for a process that does something else. Therefore process 0 first listens at the
coordinator's address itself. Each process, process 0 as well, opens one connection, gives its
number, and compares what it was started with. Then the address is left to JAX. The connections
stay open. A process that ends says so, or its closed connection is noticed at once. A process
that hangs is noticed after `SILENCE`.

Messages are JSON objects, one a line; an empty line is a sign of life.
"""

import asyncio
import contextlib
import errno
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from devices.errors import DeviceError, LostProcessError

# Seconds without a sign of life after which a process counts as lost, and between two signs.
SILENCE, _SIGN = 40, 5
# Seconds after which a waiting process prints that it waits; and seconds for which a run that
# is ending may still use the address.
_QUIET, _LEAVING = 5, 10
# The host begins every connection with this line, which tells it from other programs.
_GREETING = "vision_models: processes of one launch\n"
_LINE = 2**24  # bytes at most


class Meeting:
    """This process's connection to the others."""

    def __init__(self, address: str, count: int, own: int, lost: Callable[[str], None]):
        """Opens no connection yet.

        Args:
          address: host:port of process 0, which listens there until all have come.
          count: number of processes.
          own: number of this process.
          lost: called from a thread, with the reason, when another process is lost later on.
        """
        self.address, self.count, self.own = address, count, own
        self._lost, self._ended = lost, False
        self._host: _Host | None = None
        self._line: socket.socket | None = None
        self._sending = threading.Lock()
        self._replies: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def gather(self, patience: float, ended: int | None = None) -> None:
        """Waits until all processes have come.

        Args:
          patience: seconds to wait.
          ended: exit code of this process if it has failed and comes only to say so.

        Raises:
          DeviceError: the processes' numbers do not fit, or another program has the address.
          LostProcessError: process 0 does not answer, or a process has not come or has failed.
        """
        deadline = time.monotonic() + patience
        if self.own == 0:
            self._host = _Host(_listen(self.address), self.count, patience)
        self._line, self._reader = _connect(self.address, self.own, deadline)
        self._line.settimeout(SILENCE)
        self._send({"process": self.own, "of": self.count, "ended": ended})
        threading.Thread(target=self._give_signs, daemon=True).start()
        self._wait_for_all()
        threading.Thread(target=self._watch, daemon=True).start()

    def exchange(self, name: str, facts: dict[str, Any]) -> list[dict[str, Any]]:
        """The facts of every process in the exchange `name`, by number; waits for all."""
        self._send({"exchange": name, "facts": facts})
        brought: list[dict[str, Any]] = [{}] * self.count
        for same, processes in self._replies.get():
            for process in processes:
                brought[process] = same
        return brought

    def end(self, code: int) -> None:
        """Tells the others that this process ends; `code` 0 if without a fault."""
        self._ended = True
        self._send({"end": code})

    def linger(self, seconds: float) -> None:
        """In process 0, waits until the others have left, for `seconds` at most."""
        if self._host is not None:
            self._host.gone.wait(seconds)

    def _send(self, message: dict[str, Any]) -> None:
        with self._sending, contextlib.suppress(OSError):  # the reader notices a lost connection
            if self._line is not None:
                self._line.sendall((json.dumps(message) + "\n").encode())

    def _wait_for_all(self) -> None:
        while True:
            try:
                line = self._reader.readline()
            except OSError:
                line = ""
            if not line:
                raise LostProcessError("lost the others (process 0 is gone)")
            message = json.loads(line) if line.strip() else {}
            if "fault" in message:
                kind = LostProcessError if message["failed"] else DeviceError
                raise kind(message["fault"])
            if "waiting_for" in message:
                print(
                    f"waiting for {processes(message['waiting_for'])} of {self.count}", flush=True
                )
            if "met" in message:
                return

    def _watch(self) -> None:
        reason = "process 0 is gone"
        try:
            for line in self._reader:
                message = json.loads(line) if line.strip() else {}
                if "exchange" in message:
                    self._replies.put(message["brought"])
                if "lost" in message:
                    reason = message["lost"]
                    break
        except TimeoutError:
            reason = f"process 0 has given no sign of life for {SILENCE} s"
        except (OSError, ValueError):
            pass
        if not self._ended:
            self._lost(reason)

    def _give_signs(self) -> None:
        while not self._ended:
            time.sleep(_SIGN)
            with self._sending, contextlib.suppress(OSError):
                if self._line is not None:
                    self._line.sendall(b"\n")


class _Host:
    """Process 0's side: a thread with all connections."""

    def __init__(self, listener: socket.socket, count: int, patience: float):
        """Takes connections from `listener` until `count` processes have come."""
        self.gone = threading.Event()  # every process but process 0 has come and left
        self._listener, self._count, self._patience = listener, count, patience
        self._came: dict[int, tuple[str, asyncio.StreamWriter]] = {}
        self._left: set[int] = set()
        self._met = False
        self._fault: dict[str, Any] | None = None
        self._brought: dict[str, dict[int, Any]] = {}
        threading.Thread(target=lambda: asyncio.run(self._work()), daemon=True).start()

    async def _work(self) -> None:
        self._server = await asyncio.start_server(
            self._attend, sock=self._listener, limit=_LINE, backlog=max(self._count, 100)
        )
        begun = time.monotonic()
        said = False
        while True:
            await asyncio.sleep(1)
            waited = time.monotonic() - begun
            missing = [i for i in range(self._count) if i not in self._came]
            if not self._met and not self._fault:
                if waited > self._patience:
                    self._break_up(
                        f"{processes(missing)} of {self._count} did not come within "
                        f"{self._patience:.0f} s: started at all, with this "
                        "--coordinator_address? Start all of them together",
                        failed=True,
                    )
                elif waited > _QUIET and not said:
                    said = True
                    self._tell_all({"waiting_for": missing})
            if round(waited) % _SIGN == 0:
                self._tell_all(None)

    async def _attend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection, from its first line to its last."""
        writer.write(_GREETING.encode())
        try:
            hello = json.loads(await asyncio.wait_for(reader.readline(), SILENCE))
            process, count, ended = int(hello["process"]), int(hello["of"]), hello["ended"]
        except (OSError, ValueError, LookupError, TypeError, TimeoutError):  # a stranger
            writer.close()
            return
        where = str(writer.get_extra_info("peername")[0]).removeprefix("::ffff:")
        known = self._came.get(process)
        if known is None:
            self._came[process] = where, writer
        if count != self._count:
            self._break_up(
                f"num_processes: {self._count} at process 0, {count} at process {process}; "
                "start all of them with the same --num_processes"
            )
        elif known is not None:
            self._break_up(
                f"two processes came as process {process}, from {known[0]} and {where}; give "
                "each its own --process_id"
            )
        elif ended is not None:
            self._break_up(_gone_early(_failed(process, ended)), failed=True)
        elif len(self._came) == self._count and not self._fault:
            # JAX listens at this address from now on.
            self._server.close()
            self._met = True
            self._tell_all({"met": True})
        if self._fault:
            _tell(writer, self._fault)
        reason = await self._listen_to(process, reader)
        if known is None:
            self._left.add(process)
            if self._met and reason is not None:
                self._tell_all({"lost": reason})
            elif not self._met and reason is not None:
                self._break_up(_gone_early(reason), failed=True)
            if self._left | {0} >= set(range(self._count)):
                self.gone.set()
        with contextlib.suppress(OSError):
            writer.close()

    async def _listen_to(self, process: int, reader: asyncio.StreamReader) -> str | None:
        """Reads until a process ends; returns why it ended, or None if without a fault."""
        try:
            while line := await asyncio.wait_for(reader.readline(), SILENCE):
                message = json.loads(line) if line.strip() else {}
                if "end" in message:
                    return _failed(process, message["end"]) if message["end"] else None
                if "exchange" in message:
                    self._collect(process, message["exchange"], message["facts"])
        except TimeoutError:
            return f"process {process} has given no sign of life for {SILENCE} s"
        except (OSError, ValueError):
            pass
        return f"process {process} is gone"

    def _collect(self, process: int, name: str, facts: Any) -> None:
        brought = self._brought.setdefault(name, {})
        brought[process] = facts
        if len(brought) == self._count:
            same: dict[str, list[int]] = {}
            for number, own in sorted(brought.items()):
                same.setdefault(json.dumps(own, sort_keys=True), []).append(number)
            groups = [(json.loads(text), numbers) for text, numbers in same.items()]
            self._tell_all({"exchange": name, "brought": groups})

    def _break_up(self, fault: str, failed: bool = False) -> None:
        """Tells all processes, also those that come later, why the launch fails."""
        if self._fault is None:
            self._fault = {"fault": fault, "failed": failed}
            self._tell_all(self._fault)

    def _tell_all(self, message: Any) -> None:
        for process, (_, writer) in self._came.items():
            if process not in self._left:
                _tell(writer, message)


def _tell(writer: asyncio.StreamWriter, message: Any) -> None:
    with contextlib.suppress(OSError):
        writer.write(b"\n" if message is None else (json.dumps(message) + "\n").encode())


def split_address(address: str) -> tuple[str, int]:
    """Host and port of host:port, or of [host]:port for IPv6.

    Raises:
      ValueError: the address is invalid; the message says why.
    """
    host, colon, port = address.rpartition(":")
    if not colon or port.endswith("]"):
        raise ValueError("no port")
    if not host:
        raise ValueError("no host")
    bare = host.removeprefix("[").removesuffix("]")
    if any(c.isspace() or c == "/" for c in host) or (":" in host and host != f"[{bare}]"):
        raise ValueError(f"{host} is no host")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise ValueError(f"{port or 'nothing'} is no port (1 to {2**16 - 1})")
    return bare, int(port)


def _listen(address: str) -> socket.socket:
    """A listening socket at the port of `address`, on all of this machine's addresses.

    JAX_COORDINATOR_BIND_ADDRESS, which says where JAX's own service listens, counts here too.
    """
    host, port = "", split_address(address)[1]
    if chosen := os.environ.get("JAX_COORDINATOR_BIND_ADDRESS"):
        try:
            host, port = split_address(chosen)
        except ValueError as error:
            raise DeviceError(f"JAX_COORDINATOR_BIND_ADDRESS={chosen}: {error}") from error
    both = host in ("", "::") and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    deadline = time.monotonic() + _LEAVING
    while True:
        try:
            return socket.create_server((host, port), family=family, dualstack_ipv6=both)
        except OSError as error:
            if both and error.errno == errno.EADDRNOTAVAIL:  # IPv6 is switched off
                host, both, family = "", False, socket.AF_INET
                continue
            if time.monotonic() > deadline:
                number = error.errno or 0  # negative for an unknown name
                reason = os.strerror(number) if number > 0 else error.strerror
                raise DeviceError(
                    f"--coordinator_address={address}: process 0 cannot listen there "
                    f"({reason}). Is there another process 0, or another "
                    "program? Choose another port"
                ) from error
        time.sleep(0.5)


def _connect(address: str, own: int, deadline: float) -> tuple[socket.socket, Any]:
    """A connection to process 0 and a reader of its lines, after the greeting."""
    waits_since = time.monotonic()
    said = False
    strange_since = None
    while True:
        line, reason, strange = None, "", False
        try:
            line = socket.create_connection(split_address(address), timeout=_LEAVING)
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reader = line.makefile("r", encoding="utf-8", errors="replace", newline="\n")
            greeting = reader.readline(len(_GREETING))
            if greeting == _GREETING:
                return line, reader
            strange = bool(greeting)
        except TimeoutError:
            reason, strange = "no answer", line is not None
        except OSError as error:
            reason = error.strerror or str(error)
        if line is not None:
            line.close()
        now = time.monotonic()
        strange_since = (strange_since or now) if strange else None
        if strange_since and now > strange_since + _LEAVING:
            raise DeviceError(
                f"--coordinator_address={address}: what answers there is no process 0 that waits "
                "for others; another run, or another program? Choose another port"
            )
        if now > deadline:
            who = "this machine does not answer" if own == 0 else "no process 0 answers"
            raise LostProcessError(
                f"--coordinator_address={address}: {who} there"
                + (f" ({reason})" if reason else "")
                + ". Is that the host of process 0, and was it started?"
            )
        if now > waits_since + _QUIET and not said:
            said = True
            print(f"waiting for process 0 at {address}", flush=True)
        time.sleep(0.3)


def _gone_early(reason: str) -> str:
    return f"lost the others ({reason})"


def _failed(process: int, code: int) -> str:
    return f"process {process} has ended with code {code}; its own output says why"


def processes(numbers: list[int]) -> str:
    """Such as `process 1`, `processes 1, 2, 3, 4 and 60 more`."""
    shown = ", ".join(map(str, numbers[:4]))
    more = f" and {len(numbers) - 4} more" if len(numbers) > 4 else ""
    return f"process{'es' if len(numbers) != 1 else ''} {shown}{more}"
