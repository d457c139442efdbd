"""A tracker behind nginx, HAProxy and Varnish, each on its own host, and HTTP clients on two more.

`WAYS` lists the ways through them. Each way is a listener of the tracker that expects the client's address in one form.
"""

import json
import os
import shutil
import subprocess
import threading

from harness.net import Host
from harness.process import Failed, Process, wait_for
from harness.tracker import Tracker

XFF, FORWARDED, REAL_IP, PROXY, TLS_PROXY = 7001, 7002, 7003, 7004, 7443
HEADERS = {"x-forwarded-for": XFF, "forwarded": FORWARDED, "x-real-ip": REAL_IP}
# What a client claims to be, in all the headers that proxies use.
CLAIM = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9", "X-Real-IP": "203.0.113.9"}
# proxy -> name of a way -> (scheme, port, path in front of /announce, version of HTTP that the client speaks)
WAYS = {
    "nginx": {
        "X-Forwarded-For": ("http", 80, "/x-forwarded-for", "1.1"),
        "Forwarded": ("http", 80, "/forwarded", "1.1"),
        "X-Real-IP": ("http", 80, "/x-real-ip", "1.1"),
        "X-Forwarded-For, client over HTTP/2": ("https", 443, "/x-forwarded-for", "2"),
        "PROXY v1": ("http", PROXY, "", "1.1"),
        "PROXY v1, TLS and HTTP/2 of the tracker": ("https", TLS_PROXY, "", "2"),
    },
    "haproxy": {
        "X-Forwarded-For": ("http", 80, "/x-forwarded-for", "1.1"),
        "Forwarded": ("http", 80, "/forwarded", "1.1"),
        "X-Real-IP": ("http", 80, "/x-real-ip", "1.1"),
        "X-Forwarded-For, client over HTTP/2": ("https", 443, "/x-forwarded-for", "2"),
        "X-Forwarded-For, HTTP/2 to the tracker": ("https", 443, "/h2", "2"),
        "PROXY v1": ("http", PROXY, "", "1.1"),
        "PROXY v2": ("http", PROXY + 1, "", "1.1"),
        "PROXY v2, TLS and HTTP/2 of the tracker": ("https", TLS_PROXY, "", "2"),
    },
    "varnish": {
        "X-Forwarded-For": ("http", 80, "/x-forwarded-for", "1.1"),
        "PROXY v1": ("http", 80, "/v1", "1.1"),
        "PROXY v2": ("http", 80, "/v2", "1.1"),
    },
}


class Stage:
    """Starts everything once. `missing` are the proxies that are not installed. It ends with the namespaces."""

    def __init__(self, bench, directory):
        self.missing = bench.tools.missing
        self.hosts = {name: Host(name) for name in WAYS}
        # The proxies and the tracker behind them have the same certificate.
        others = list(self.hosts.values())
        self.tracker = Tracker(bench.tracker.binary, directory, certified=others, config=self._config())
        self.address, self.ca = self.tracker.host.ip4, self.tracker.ca
        self._directory = directory
        starts = {"nginx": self._nginx, "haproxy": self._haproxy, "varnish": self._varnish}
        self.processes = {name: start() for name, start in starts.items() if name not in self.missing}
        for name, process in self.processes.items():
            try:
                wait_for(f"{name} listens", lambda: process.listens(80), 30, [process])
            except Failed as failed:
                raise Failed(f"{failed}\n{process.output()[-2000:]}") from None
        self.seeder, self.leecher = (Web(bench.tools, label, self.ca) for label in ("web-seeder", "web-leecher"))

    def url(self, proxy, way, family):
        """The announce URL of a way."""
        scheme, port, path, _ = WAYS[proxy][way]
        return f"{scheme}://{self.hosts[proxy].address(family)}:{port}{path}/announce"

    def connections(self, proxy):
        """Connections of a proxy to the tracker for X-Forwarded-For, open or closed a short time ago."""
        parts = bytes(map(int, self.hosts[proxy].ip4.split(".")))[::-1].hex().upper()
        return sum(
            local.endswith(f":{XFF:04X}") and remote.split(":")[0].endswith(parts)
            for local, remote in self.tracker.process.sockets()
        )

    def _config(self):
        proxies = json.dumps([address for host in self.hosts.values() for address in (host.ip4, host.ip6)])
        headers = ",".join(
            f'{{ address = "[::]:{port}", proxies = {proxies}, header = "{header}" }}'
            for header, port in HEADERS.items()
        )
        behind = f"proxies = {proxies}, proxy_protocol = true"
        return f"""
[listen]
udp = ["[::]:6969"]
http = ["[::]:6969", {headers}, {{ address = "[::]:{PROXY}", {behind} }}]
https = ["[::]:6443", {{ address = "[::]:{TLS_PROXY}", {behind} }}]
http3 = ["[::]:6443"]
"""

    def _write(self, name, text):
        path = os.path.join(self._directory, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def _run(self, name, argv):
        return Process(self.hosts[name], argv, os.path.join(self._directory, f"{name}.log"), cwd=self._directory)

    def _nginx(self):
        upstreams = "\n".join(
            f"upstream {header} {{ server {self.address}:{port}; keepalive 4; }}" for header, port in HEADERS.items()
        )
        values = {"x-forwarded-for": "$proxy_add_x_forwarded_for", "forwarded": "$forwarded", "x-real-ip": "$remote_addr"}
        # A proxy_set_header of a location replaces those of the server.
        locations = "\n".join(
            f"location /{header}/ {{ proxy_set_header Connection ''; proxy_set_header {header} {value};"
            f" proxy_pass http://{header}/; }}"
            for header, value in values.items()
        )
        temporary = "\n".join(
            f"{kind}_temp_path {self._directory}/nginx-{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        streams = "\n".join(
            f"server {{ listen {port}; listen [::]:{port}; proxy_protocol on; proxy_pass {self.address}:{port}; }}"
            for port in (PROXY, TLS_PROXY)
        )
        path = self._write("nginx.conf", f"""
load_module modules/ngx_stream_module.so;
daemon off;
user root;
worker_processes 1;
pid {self._directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    {temporary}
    map $remote_addr $forwarded {{ ~: 'for="[$remote_addr]"'; default "for=$remote_addr"; }}
    {upstreams}
    server {{
        listen 80; listen [::]:80; listen 443 ssl http2; listen [::]:443 ssl http2;
        ssl_certificate {self.tracker.cert}; ssl_certificate_key {self.tracker.key};
        proxy_http_version 1.1;
        {locations}
        location /nothing/ {{
            proxy_set_header X-Forwarded-For ''; proxy_set_header Connection ''; proxy_pass http://x-forwarded-for/;
        }}
    }}
}}
stream {{
    {streams}
}}
""")
        return self._run("nginx", ["nginx", "-p", "/usr/share/nginx", "-e", "stderr", "-c", path])

    def _haproxy(self):
        pem = os.path.join(self._directory, "haproxy.pem")
        with open(pem, "wb") as file:
            for part in (self.tracker.cert, self.tracker.key):
                with open(part, "rb") as source:
                    shutil.copyfileobj(source, file)

        def bind(port, more=""):
            return f"    bind 0.0.0.0:{port} {more}\n    bind [::]:{port} v6only {more}\n"

        def backend(name, port, lines, server=""):
            strip = "    http-request replace-path /[^/]*(/.*) \\1\n"
            return f"backend {name}\n{strip}{lines}    server tracker {self.address}:{port} {server}\n"

        def tunnel(port, to, send):
            return f"listen tunnel{port}\n    mode tcp\n{bind(port)}    server tracker {self.address}:{to} {send}\n"

        text = "".join([
            "global\n    maxconn 200\ndefaults\n    mode http\n",
            "    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n",
            "frontend web\n", bind(80), bind(443, f"ssl crt {pem} alpn h2,http/1.1"),
            "    use_backend %[path,field(2,/)]\n",
            backend("x-forwarded-for", XFF, "    option forwardfor\n"),
            backend("h2", XFF, "    option forwardfor\n", "proto h2"),
            backend("x-real-ip", REAL_IP, "    http-request set-header X-Real-IP %[src]\n"),
            backend(
                "forwarded", FORWARDED,
                '    http-request set-header Forwarded for=%[src] unless { src -m ip ::/0 }\n'
                '    http-request set-header Forwarded for=\\"[%[src]]\\" if { src -m ip ::/0 }\n',
            ),
            tunnel(PROXY, PROXY, "send-proxy"), tunnel(PROXY + 1, PROXY, "send-proxy-v2"),
            tunnel(TLS_PROXY, TLS_PROXY, "send-proxy-v2"),
        ])
        return self._run("haproxy", ["haproxy", "-db", "-f", self._write("haproxy.cfg", text)])

    def _varnish(self):
        def backend(name, port, more=""):
            return f'backend {name} {{ .host = "{self.address}"; .port = "{port}"; {more} }}\n'

        # Nothing here forbids caching: Varnish must learn it from the replies.
        text = "vcl 4.1;\n" + backend("plain", XFF) + "".join(
            backend(f"v{version}", PROXY, f".proxy_header = {version};") for version in (1, 2)
        ) + """
sub vcl_recv {
    if (req.url ~ "^/v1/") { set req.backend_hint = v1; }
    elsif (req.url ~ "^/v2/") { set req.backend_hint = v2; }
    else { set req.backend_hint = plain; }
    set req.url = regsub(req.url, "^/[^/]*/", "/");
}
"""
        # Without a jail: all of its users are on this machine, and its directory belongs to root.
        return self._run("varnish", [
            "varnishd", "-F", "-j", "none", "-n", os.path.join(self._directory, "varnish"),
            "-a", "0.0.0.0:80", "-a", "[::]:80", "-s", "malloc,16m", "-f", self._write("varnish.vcl", text),
        ])


class Web:
    """An HTTP client on its own host (peers/web_client.py), for one request at a time."""

    def __init__(self, tools, label, ca):
        self.host = Host(label)
        self._lock = threading.Lock()
        self._child = subprocess.Popen(
            self.host.argv([tools.python, tools.peer_script("web_client.py"), ca]),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
        )

    def ask(self, url, version, headers):
        """The reply as web_client.py describes it. Fails if there is none, or another version of HTTP."""
        with self._lock:
            self._child.stdin.write(json.dumps({"url": url, "version": version, "headers": headers}) + "\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        if not line:
            raise Failed("the HTTP client died")
        reply = json.loads(line)
        if "error" in reply:
            raise Failed(f"{url.split('?')[0]}: {reply['error']}")
        if reply["version"] != {"1.1": 11, "2": 20, "3": 30}[version]:
            raise Failed(f"the reply is of HTTP version {reply['version']}, not {version}")
        return reply
