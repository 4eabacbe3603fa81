"""A test run that is killed takes its servers with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil

from tests.servers.forks import ROOT
from tests.servers.waiting import until

_RUN = """
import subprocess, sys, time
from tests.servers.reaper import watch
server = watch(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
print(server.pid, flush=True)
time.sleep(600)
"""


def test_servers_of_a_killed_run_end() -> None:
    with subprocess.Popen([sys.executable, "-c", _RUN], stdout=subprocess.PIPE, cwd=ROOT) as run:
        assert run.stdout
        server = psutil.Process(int(run.stdout.readline()))
        os.kill(run.pid, signal.SIGKILL)

    def has_ended() -> bool:
        try:
            return bool(server.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return True

    until(has_ended, "the server to end")
