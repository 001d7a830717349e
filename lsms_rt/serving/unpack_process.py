"""The process that inflates Blosc2 blocks of a request: C code on data that anybody may have made.

It holds nothing but the request's body, so what the decoder does wrong reaches no other request.
"""

from __future__ import annotations

import importlib
import resource
import struct
import sys
from typing import Any

# bytes of address space besides the blocks: Python, NumPy, and the decoder with its threads
OWN = 2**30


def main() -> None:
    """Read blocks, each after its size and its compressed size (8 bytes each), and write what they hold."""
    data = memoryview(sys.stdin.buffer.read())
    blosc2: Any = importlib.import_module("blosc2")
    blosc2.set_nthreads(1)
    limit = OWN + len(data) + 3 * int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    at = 0
    while at < len(data):
        size, packed = struct.unpack_from("<QQ", data, at)
        at += 16
        raw = blosc2.decompress(data[at : at + packed])
        if len(raw) != size:
            raise SystemExit("a block holds another number of bytes than it states")
        sys.stdout.buffer.write(raw)
        at += packed
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
