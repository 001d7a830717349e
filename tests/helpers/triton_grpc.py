"""Run by the Python of tritonserver's environment, which has gRPC: ask by it, and print what came as JSON.

``triton_grpc.py ADDRESS FILE answer TEXT`` prints the outputs; ``... shared TEXT`` sends a slice (saved as NPY) by
shared memory, and prints the mask that came by it; ``... cancel TEXT`` begins requests of many slices, cancels them,
and prints the status and how many seconds later another one was answered.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton

NAMES = ("MASK", "SCORE", "FOUND", "READ_AS", "NOTES")


def inputs(text: str, name: str, kind: str, values: np.ndarray) -> list:
    sentence, image = triton.InferInput("TEXT", [1], "BYTES"), triton.InferInput(name, list(values.shape), kind)
    sentence.set_data_from_numpy(np.array([text.encode()], object))
    image.set_data_from_numpy(values)
    return [sentence, image]


def shared(client: triton.InferenceServerClient, file: str, text: str) -> list:
    """Return the mask of a slice; both go through system shared memory."""
    from tritonclient.utils import shared_memory

    hu = np.load(file)
    image = triton.InferInput("IMAGE", list(hu.shape), "INT16")
    sentence, _ = inputs(text, "IMAGE", "INT16", hu)
    mask = triton.InferRequestedOutput("MASK")
    sizes = {"IMAGE": hu.nbytes, "MASK": hu.size}
    regions = {}
    try:
        for name, size in sizes.items():
            key = f"/lsms-rt-test-{os.getpid()}-{name}"
            regions[name] = shared_memory.create_shared_memory_region(name, key, size)
            client.register_system_shared_memory(name, key, size)
        shared_memory.set_shared_memory_region(regions["IMAGE"], [hu])
        image.set_shared_memory("IMAGE", hu.nbytes)
        mask.set_shared_memory("MASK", hu.size)
        client.infer("demo", [image, sentence], outputs=[mask])
        return shared_memory.get_contents_as_numpy(regions["MASK"], np.uint8, hu.shape).tolist()
    finally:
        _unregister(client)
        for region in regions.values():
            shared_memory.destroy_shared_memory_region(region)


def _unregister(client: triton.InferenceServerClient) -> None:
    """Unregister all regions; the server holds them for a moment after its answer."""
    for _ in range(200):
        try:
            client.unregister_system_shared_memory()
            return
        except triton.InferenceServerException:
            time.sleep(0.05)


def main() -> None:
    address, file, what, text = sys.argv[1:]
    client = triton.InferenceServerClient(address)
    if what == "shared":
        print(json.dumps(shared(client, file, text)))
        return
    dicom = inputs(text, "DICOM", "BYTES", np.array([Path(file).read_bytes()], object))
    if what == "answer":
        try:
            found = client.infer("demo", dicom)
        except triton.InferenceServerException as error:
            print(json.dumps({"status": error.status(), "message": error.message()}))
            return
        outputs = {name: found.as_numpy(name) for name in NAMES}
        print(json.dumps({name: [str(a.dtype), a.shape, a.astype("U" if a.dtype == object else a.dtype).tolist()]
                          for name, a in outputs.items()}))  # fmt: skip
        return
    over, errors = threading.Event(), []
    many = inputs(text, "IMAGE", "INT16", np.zeros((400, 256, 256), np.int16))

    def ended(result: object, error: triton.InferenceServerException) -> None:
        errors.append(error)
        over.set()

    for _ in range(2):
        # one for each instance
        context = client.async_infer("demo", many, callback=ended)
        time.sleep(0.5)
        context.cancel()
    over.wait(60)
    begin = time.monotonic()
    client.infer("demo", dicom)
    print(json.dumps({"status": errors[0].status(), "seconds": time.monotonic() - begin}))


main()
