"""Messages between the server and a worker process, over a pair of sockets.

A message is pickled, but what its arrays hold is sent from where it lies in memory, and lands where it stays:

    number of parts (4 bytes), bytes of each (8 each), the pickle, the data of each array
"""

from __future__ import annotations

import asyncio
import pickle
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Generator
from itertools import islice
from typing import Any

import numpy as np

# Bytes that wait in a socket, as far as the system allows: a slice or its mask, so that its sender goes on at once.
ROOM = 2**20
# Reads and writes after which the event loop gets its turn, and pieces of memory in one write.
TURN, PIECES = 32, 64


def pair() -> tuple[socket.socket, Pipe]:
    """Return both ends: the server's socket, for a ``Line``, and the worker's pipe."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
    return ours, Pipe(theirs)


class Pipe:
    """The worker's end, which waits.

    Args:
        end: the socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def send(self, message: Any) -> None:
        """Send a message; OSError if the server is gone."""
        out = _outgoing(message)
        while out:
            _send_some(self._end, out)

    def recv(self) -> Any:
        """Wait for a message; EOFError if the server is gone."""
        reading = _incoming()
        try:
            while True:
                left = next(reading)
                while left:
                    size = self._end.recv_into(left)
                    if not size:
                        raise EOFError
                    left = left[size:]
        except StopIteration as end:
            return end.value

    def poll(self) -> bool:
        """Whether a message has begun to arrive, or the server is gone."""
        poll = select.poll()
        poll.register(self._end, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        self._end.close()


class Line:
    """The server's end, on its event loop.

    Args:
        end: the socket; the line closes it.
        heard: called with every message.
        lost: called once, unless the line was closed: with None when the worker is gone, else with the error that a
            message, or ``heard``, has met.
    """

    def __init__(
        self, end: socket.socket, heard: Callable[[Any], None], lost: Callable[[Exception | None], None]
    ) -> None:
        self._end, self._heard, self._lost = end, heard, lost
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._out: deque[memoryview] = deque()
        self._reading = _incoming()
        self._left = next(self._reading)
        end.setblocking(False)
        self._loop.add_reader(end, self._guarded, self._read)

    def send(self, message: Any) -> None:
        """Send a message, now or as soon as the worker reads it."""
        self._guarded(self._begin, message)

    def close(self) -> None:
        """Send and hear nothing more."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._end)
            self._loop.remove_writer(self._end)
            self._out.clear()
            self._end.close()

    def _guarded(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception as error:
            self.close()
            self._lost(None if isinstance(error, (EOFError, OSError)) else error)

    def _begin(self, message: Any) -> None:
        waits = bool(self._out)
        self._out += _outgoing(message)
        if not waits:
            self._loop.add_writer(self._end, self._guarded, self._write)
            self._write()

    def _write(self) -> None:
        for _ in range(TURN):
            if not self._out:
                self._loop.remove_writer(self._end)
                return
            try:
                _send_some(self._end, self._out)
            except BlockingIOError:
                return

    def _read(self) -> None:
        for _ in range(TURN):
            if not self._open:
                # What was heard has closed it.
                return
            try:
                size = self._end.recv_into(self._left)
            except BlockingIOError:
                return
            if not size:
                raise EOFError
            self._left = self._left[size:]
            while not self._left:
                self._turn_over()

    def _turn_over(self) -> None:
        """Go on to the next piece of memory, or to the next message."""
        try:
            self._left = next(self._reading)
        except StopIteration as end:
            self._reading = _incoming()
            self._left = next(self._reading)
            self._heard(end.value)


def _send_some(end: socket.socket, out: deque[memoryview]) -> None:
    """Send what the socket takes at once, and drop it from ``out``."""
    size = end.sendmsg(list(islice(out, PIECES)))
    while out and size >= len(out[0]):
        size -= len(out.popleft())
    if size:
        out[0] = out[0][size:]


def _outgoing(message: Any) -> deque[memoryview]:
    """Return the pieces of memory whose bytes are a message."""
    arrays: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(message, 5, buffer_callback=arrays.append)
    parts = [memoryview(pickled), *(array.raw() for array in arrays)]
    head = struct.pack(f"<I{len(parts)}Q", len(parts), *map(len, parts))
    return deque([memoryview(head), *(part for part in parts if part)])


def _incoming() -> Generator[memoryview, None, Any]:
    """Yield the pieces of memory that a message's bytes go into, one after the other; return the message."""
    count = bytearray(4)
    yield memoryview(count)
    sizes = bytearray(8 * struct.unpack("<I", count)[0])
    yield memoryview(sizes)
    # Memory of NumPy's, which is not filled with zeros before.
    parts = [np.empty(size, np.uint8).data for (size,) in struct.iter_unpack("<Q", sizes)]
    yield from parts
    return pickle.loads(parts[0], buffers=parts[1:])
