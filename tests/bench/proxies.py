"""What the door is compared with in every run: proxies that only pass on.

Strategy: nginx as fast as one worker is, with nothing of it buffered that is a stream; and aiohttp as it comes.
"""

import os
import pwd
import shutil
import sys
from collections.abc import Sequence

from tests.bench.systems import CONNECTIONS_MAX, Server


class Bare(Server):
    """A bare aiohttp proxy."""

    name = "aiohttp"

    def command(self) -> Sequence[str]:
        return (sys.executable, "-m", "tests.bench.bare_proxy", self.place.upstream_url, str(self.port))


NGINX_BINARY = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

_NGINX = """
daemon off;
user {user};
worker_processes 1;
worker_rlimit_nofile {connections};
pid {directory}/pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    client_max_body_size 16m;
    client_body_buffer_size 1m;         # a long prompt stays in memory
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    upstream provider {{
        server 127.0.0.1:{upstream_port};
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout 600s;
            # Answers are buffered, streams are not: the provider says so with X-Accel-Buffering.
        }}
    }}
}}
"""


class Nginx(Server):
    """nginx as a bare proxy."""

    name = "nginx"

    def command(self) -> Sequence[str]:
        assert NGINX_BINARY is not None
        text = _NGINX.format(
            user=pwd.getpwuid(os.geteuid()).pw_name,  # who is not root is only told that it has no effect
            connections=CONNECTIONS_MAX,
            directory=self.directory,
            upstream_port=self.place.upstream_port,
            port=self.port,
        )
        (self.directory / "nginx.conf").write_text(text)
        return (NGINX_BINARY, "-p", str(self.directory), "-e", "stderr", "-c", str(self.directory / "nginx.conf"))
