"""An HTTP client (niquests) that obeys its stdin: web_client.py CA.

A line of stdin is a JSON object: `url`, `version` ("1.1", "2" or "3"), `headers`. The answer is a line of stdout:
`version` of the reply, `status`, `headers`, and `body` in hex, or `error`. It keeps its connections.
"""

import json
import sys
import urllib.parse

import niquests

ca = sys.argv[1]
VERSIONS = {"1.1": 11, "2": 20, "3": 30}
sessions = {}


def session(version):
    if version not in sessions:
        sessions[version] = niquests.Session(
            disable_http1=version != "1.1", disable_http2=version != "2", disable_http3=version != "3",
            revocation_configuration=None,
        )
        sessions[version].trust_env = False
    return sessions[version]


for line in sys.stdin:
    request = json.loads(line)
    # By itself niquests 3.21.2 sends an IPv6 address without its brackets as :authority over HTTP/2.
    host = urllib.parse.urlsplit(request["url"]).netloc
    try:
        reply = session(request["version"]).get(
            request["url"], headers={"Host": host, **request["headers"]}, timeout=10, verify=ca, allow_redirects=False,
        )
        answer = {
            "version": reply.http_version, "status": reply.status_code,
            "headers": {name.lower(): value for name, value in reply.headers.items()},
            "body": (reply.content or b"").hex(),
        }
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
