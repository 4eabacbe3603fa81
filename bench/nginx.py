"""The limit a gateway is judged by: nginx handing calls on, without authentication or metering."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from bench import payload, proc
from bench.target import Target

_CONFIG = """
worker_processes 1;
daemon off;
pid {work}/nginx.pid;
error_log {work}/nginx-error.log warn;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {work}/nginx-body;
    proxy_temp_path {work}/nginx-proxy;
    fastcgi_temp_path {work}/nginx-fastcgi;
    uwsgi_temp_path {work}/nginx-uwsgi;
    scgi_temp_path {work}/nginx-scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    upstream stub {{
        server 127.0.0.1:{upstream};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        client_body_buffer_size 64k;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        location / {{ proxy_pass http://stub; }}
        location {stream} {{ proxy_buffering off; proxy_pass http://stub{path}; }}
    }}
}}
"""


def program() -> str:
    """Where nginx is."""
    # Debian keeps it out of an ordinary user's PATH.
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/nginx/sbin")
    if found is None:
        raise proc.BenchFailed(
            "nginx is not installed, and every figure is judged by it. "
            "Install it (Debian, Ubuntu: apt-get install nginx-light wrk) and run the bench again; no service need run."
        )
    return found


@contextlib.contextmanager
def serving(upstream: int, *, work: Path, cores: frozenset[int]) -> Iterator[Target]:
    """The baseline as an ordinary user would run it: everything it writes lies in `work`."""
    port = proc.free_port()
    config = work / "nginx.conf"
    config.write_text(
        _CONFIG.format(work=work, upstream=upstream, port=port, stream=payload.STREAM_PATH, path=payload.PATH)
    )
    command = [program(), "-p", str(work), "-c", str(config), "-e", str(work / "nginx-error.log")]
    with proc.started("nginx", command, work=work, cores=cores) as running:
        start_s = proc.wait_until_open(running, port)
        yield Target("nginx", (running,), (port,), start_s, stream_path=payload.STREAM_PATH)
