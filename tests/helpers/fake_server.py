"""A server in a process of its own, with workers that do as the sentence says: fake_server.py PORT GRACE."""

from __future__ import annotations

import sys

import fake_worker

from lsms_rt.data import demo_engine
from lsms_rt.serving.app import create_app
from lsms_rt.serving.settings import Model, Settings
from lsms_rt.serving.stopping import listen

if __name__ == "__main__":
    port, grace = int(sys.argv[1]), float(sys.argv[2])
    models = (Model(name="demo", path=demo_engine()),)
    listen(create_app(Settings(models=models, grace=grace), fake_worker.main), "127.0.0.1", port, grace, flush=1.0)
