"""Messages between the server and a worker: whole in pieces of any size, and an end of either side is noticed."""

from __future__ import annotations

import asyncio
import pickle
import socket
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from run_async import on_a_loop

from lsms_rt.serving import wire
from lsms_rt.serving.wire import Line, Pipe, pair


class Ends:
    """Both ends, and what the server's has told; closed at the end of the block."""

    def __enter__(self) -> Ends:
        ours, self.pipe = pair()
        self.heard: list[Any] = []
        self.lost: list[Exception | None] = []
        self.line = Line(ours, self.heard.append, self.lost.append)
        return self

    def __exit__(self, *error: object) -> None:
        self.line.close()
        self.pipe.close()

    async def until(self, condition: Callable[[], Any]) -> None:
        async def met() -> None:
            while not condition():
                await asyncio.sleep(0.001)

        await asyncio.wait_for(met(), 20)


MESSAGES: list[Any] = [
    "cancel",
    {"none": np.zeros((0, 3), np.int16), "one": np.float32(1.5), "text": "\u00e4"},
    [np.arange(12, dtype=np.int16).reshape(3, 4), np.ones(3, bool), b"x" * 100],
    # Not contiguous, and more arrays than pieces in one write.
    np.arange(24).reshape(2, 3, 4).swapaxes(0, 1),
    [np.full(n, n, np.uint8) for n in range(200)],
    # More than a socket holds.
    {"image": np.arange(2**23, dtype=np.int32).reshape(2, -1)},
]


@on_a_loop
async def test_messages_arrive_as_they_were_sent() -> None:
    with Ends() as ends:
        echo = threading.Thread(target=lambda: [ends.pipe.send(ends.pipe.recv()) for _ in MESSAGES])
        echo.start()
        for message in MESSAGES:
            ends.line.send(message)
        await ends.until(lambda: len(ends.heard) == len(MESSAGES))
        echo.join()
        np.testing.assert_equal(ends.heard, MESSAGES)
        assert ends.lost == []


@on_a_loop
async def test_pieces_may_be_of_any_size() -> None:
    with Ends() as ends:
        raw = b"".join(wire._outgoing([np.arange(5), "text"]))
        for byte in raw * 2:
            ends.pipe._end.send(bytes([byte]))
            await asyncio.sleep(0)
        await ends.until(lambda: len(ends.heard) == 2)
        np.testing.assert_equal(ends.heard, [[np.arange(5), "text"]] * 2)


def test_what_an_array_holds_is_not_copied() -> None:
    image = np.zeros((64, 64), np.int16)
    pieces = wire._outgoing({"image": image})
    assert np.shares_memory(np.frombuffer(pieces[-1], np.uint8), image)


@on_a_loop
async def test_a_worker_that_does_not_read_keeps_nobody_waiting() -> None:
    with Ends() as ends:
        # Before the first has been read.
        for number in range(3):
            ends.line.send(np.full(2**22, number))
        assert not ends.lost
        got = [await asyncio.to_thread(ends.pipe.recv) for _ in range(3)]
        assert [int(one[-1]) for one in got] == [0, 1, 2]


@on_a_loop
async def test_the_end_of_a_worker_is_told_once() -> None:
    with Ends() as ends:
        ends.pipe.send("last")
        ends.pipe.close()
        await ends.until(lambda: ends.lost)
        await asyncio.sleep(0.01)
        assert (ends.heard, ends.lost) == (["last"], [None])


@on_a_loop
async def test_a_message_to_a_worker_that_is_gone() -> None:
    with Ends() as ends:
        ends.pipe.close()
        ends.line.send("task")
        assert ends.lost == [None]


@on_a_loop
async def test_half_a_message_is_none() -> None:
    with Ends() as ends:
        ends.pipe._end.sendall(b"".join(wire._outgoing("a text"))[:-1])
        ends.pipe.close()
        await ends.until(lambda: ends.lost)
        assert (ends.heard, ends.lost) == ([], [None])


@on_a_loop
async def test_what_cannot_be_read_or_sent_is_told() -> None:
    with Ends() as ends:
        ends.pipe._end.sendall(b"\1\0\0\0" + (3).to_bytes(8, "little") + b"abc")
        await ends.until(lambda: ends.lost)
        assert isinstance(ends.lost[0], pickle.UnpicklingError)
    with Ends() as other:
        other.line.send(lambda: None)
        assert isinstance(other.lost[0], (pickle.PicklingError, AttributeError))


@on_a_loop
async def test_who_hears_may_fail_or_close_the_line() -> None:
    with Ends() as ends:
        ends.line._heard = lambda message: 1 / 0
        ends.pipe.send("one")
        await ends.until(lambda: ends.lost)
        assert isinstance(ends.lost[0], ZeroDivisionError)
    with Ends() as other:
        other.line._heard = lambda message: (other.heard.append(message), other.line.close())
        other.pipe.send("one")
        other.pipe.send("two")
        await other.until(lambda: other.heard)
        await asyncio.sleep(0.01)
        assert (other.heard, other.lost) == (["one"], [])


@on_a_loop
async def test_a_worker_sees_what_comes_and_the_end() -> None:
    with Ends() as ends:
        assert not ends.pipe.poll()
        ends.line.send("task")
        assert ends.pipe.poll()
        assert ends.pipe.recv() == "task"
        ends.line.close()
        assert ends.pipe.poll()
        with pytest.raises(EOFError):
            ends.pipe.recv()


def test_a_pair_has_room_for_a_slice() -> None:
    ours, theirs = pair()
    with ours:
        assert isinstance(theirs, Pipe)
        largest = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        with socket.socket(socket.AF_UNIX) as usual:
            assert largest >= usual.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        theirs.close()
