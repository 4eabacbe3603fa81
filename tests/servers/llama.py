"""A real LLM server: llama.cpp with the tiny model, for chat or for embeddings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.canaries import Canaries
from tests.servers.reaper import watch
from tests.servers.waiting import answers, free_port, stop, until_alive

# Runs in a process of its own: llama.cpp's HTTP server has no stop that returns.
_PROGRAM = """
import json, sys, time
import xllamacpp

wish = json.loads(sys.stdin.read())
params = xllamacpp.CommonParams()
params.model.path = wish["model"]
params.model_alias = {wish["alias"]}
params.n_ctx = 8192
params.n_parallel = 4
params.hostnames = ["127.0.0.1"]
params.port = wish["port"]
params.cpuparams.n_threads = 1
params.api_keys = wish["keys"]
params.warmup = False
if wish["embedding"]:
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
server = xllamacpp.Server(params)
while True:
    time.sleep(3600)
"""


@dataclass(frozen=True, slots=True)
class Llama:
    """A running server: where it is, the keys it takes, and the name of its model."""

    url: str
    origin: str
    keys: tuple[str, ...]
    model: str

    @property
    def key(self) -> str:
        """One that it takes."""
        return self.keys[0]


@contextmanager
def running(folder: Path, canaries: Canaries, *, embedding: bool = False) -> Iterator[Llama]:
    """Start the server on a free port of the loopback; it is gone when the block ends."""
    from tests.servers import tiny_model

    alias = "tiny-embed" if embedding else "tiny"
    model = folder / f"{alias}.gguf"
    tiny_model.write(model)
    keys, port, log = (canaries.plant(), canaries.plant()), free_port(), folder / f"{alias}.log"
    wish = {"model": str(model), "alias": alias, "port": port, "keys": keys, "embedding": embedding}
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=out, stderr=out)
    watch(process)
    assert process.stdin
    with process.stdin as pipe:
        pipe.write(json.dumps(wish).encode())
    try:
        until_alive(process, lambda: answers(port), log)
        origin = f"http://127.0.0.1:{port}"
        yield Llama(f"{origin}/v1", origin, keys, alias)
    finally:
        stop(process)
