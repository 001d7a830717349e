"""Arrays that anybody may send: what the decoder makes of them stays in a process of its own."""

from __future__ import annotations

import contextlib
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsms_rt.serving import arrays
from lsms_rt.serving.arrays import pack, unpack
from lsms_rt.serving.replies import RequestError

LABELS = (np.arange(4000) % 7).astype(np.uint8).reshape(4, 20, 50)
# Where the block begins in what ``pack`` makes of LABELS: 4 + 1 + 3 + 1 + 3 * 8 + 8, and the two sizes.
BLOCK = 41 + 16


def forged(size: int, **header: int) -> bytes:
    """Return a body of one block of 100 bytes that states ``size`` bytes, and a header of its own."""
    fields = {"flags": 0x02, "inner": size, "packed": 16 + size} | header
    block = struct.pack("<BBBBIII", 5, 1, fields["flags"], 1, size, fields["inner"], fields["packed"])
    block += bytes(100 - len(block))
    head = b"VXA2\x03|u1\x01" + struct.pack("<QQ", size, size)
    return head + struct.pack("<QQ", size, len(block)) + block


@pytest.mark.parametrize(
    "body",
    [
        # Stored as it is, and more of it than there is.
        forged(100_000), forged(100_000, packed=100), forged(100_000, packed=100, flags=0x07),
        # a codec that would be loaded; blocks within the block that are larger than it
        forged(84, packed=100, flags=0xE0), forged(84, packed=100, inner=2**31), forged(84, packed=100, inner=0),
    ],
)  # fmt: skip
def test_a_block_that_states_more_than_it_holds_is_not_inflated(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> bytes:
        raise AssertionError

    monkeypatch.setattr(arrays, "_inflated", never)
    with pytest.raises(RequestError):
        unpack(body, 2**20)


def test_flags_of_the_long_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_inflated", lambda blocks, total: bytes(total))
    good = pack(LABELS)
    assert unpack(good, LABELS.size).shape == LABELS.shape
    # a filter that is a plugin; not initialized; lazy, from a file; a dictionary
    for at, value in ((16, 40), (31, 0x40), (31, 0x08), (31, 0x01)):
        body = bytearray(good)
        body[BLOCK + at] = value
        with pytest.raises(RequestError):
            unpack(bytes(body), LABELS.size)


def test_random_changes_never_reach_the_decoder_with_sizes_that_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    passed = []
    monkeypatch.setattr(
        arrays, "_inflated", lambda blocks, total: passed.append((bytes(blocks), total)) or bytes(total)
    )
    chance = random.Random(0)
    good = pack(LABELS)
    for _ in range(1000):
        body = bytearray(good)
        for _ in range(chance.randint(1, 3)):
            body[chance.randrange(BLOCK + 32)] = chance.randrange(256)
        try:
            unpack(bytes(body), LABELS.size)
        except RequestError:
            continue
        blocks, total = passed[-1]
        size, packed = struct.unpack_from("<QQ", blocks)
        assert size == total == struct.unpack_from("<I", blocks, 20)[0]
        assert packed == len(blocks) - 16 == struct.unpack_from("<I", blocks, 28)[0]
    assert passed


@pytest.mark.slow
def test_changes_of_the_content_end_no_more_than_the_request() -> None:
    chance = random.Random(1)
    good = pack(np.random.default_rng(0).integers(0, 3, 4000).astype(np.uint8))
    np.testing.assert_array_equal(unpack(good, 4000), unpack(good, 4000))
    for _ in range(6):
        body = bytearray(good)
        for _ in range(10):
            body[chance.randrange(BLOCK + 32, len(body))] = chance.randrange(256)
        with contextlib.suppress(RequestError):
            assert unpack(bytes(body), 4000).size == 4000


def test_the_process_that_inflates_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setenv("LSMS_RT_API_KEY", "0123456789abcdef")
    run = arrays.subprocess.run

    def watched(*args: Any, **more: Any) -> Any:
        seen.update(more)
        return run(*args, **more)

    monkeypatch.setattr(arrays.subprocess, "run", watched)
    np.testing.assert_array_equal(unpack(pack(LABELS), LABELS.size), LABELS)
    assert "LSMS_RT_API_KEY" not in seen["env"]


def test_labels_are_bounded_by_the_shape_of_the_image(demo: Any, example: Path) -> None:
    response = demo.http.post("/images", params={"include_image": False}, content=example.read_bytes())
    image = response.headers["X-Meta"].split('"image_id": "')[1][:32]
    many = pack(np.zeros((1, 2048, 2048), np.uint8))
    assert demo.http.post(f"/images/{image}/export", content=many).status_code == 400
    large = bytes(8 * 2**20)
    assert demo.http.post(f"/images/{image}/export", content=large).status_code == 413
    demo.http.delete(f"/images/{image}")
