"""HTTP/3 with aioquic, and hand-made breaches of it; prints what came back, judges nothing.

h3_client.py HOST PORT MODE, one JSON object a line on stdout:
  get PATH...     one GET a path on one connection, all at once
  breach          every entry of BREACHES: the breach, then a good request on the same connection
                  if that still lives, then one on a new connection
"""

import asyncio
import json
import ssl
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StopSendingReceived, StreamReset
from pylsqpack import Encoder

PATIENCE = 5
DATA, HEADERS, SETTINGS = 0, 1, 4


class Client(QuicConnectionProtocol):
    """Collects, for each request stream, what the server did with it."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.h3 = H3Connection(self._quic)
        self.replies, self.ended = {}, None
        self._news = asyncio.Event()

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.ended = {"closed": event.error_code, "reason": event.reason_phrase}
        if isinstance(event, (StreamReset, StopSendingReceived)):
            kind = "reset" if isinstance(event, StreamReset) else "stop_sending"
            self.replies.setdefault(event.stream_id, {})[kind] = event.error_code
        for part in self.h3.handle_event(event):
            reply = self.replies.setdefault(part.stream_id, {})
            if isinstance(part, HeadersReceived):
                reply["headers"] = {name.decode(): value.decode() for name, value in part.headers}
                reply["status"] = int(reply["headers"].pop(":status"))
            if isinstance(part, DataReceived):
                reply["body"] = reply.get("body", "") + part.data.hex()
            reply["ended"] = part.stream_ended
        self._news.set()

    def raw(self, *frames, end=True):
        """A new request stream with these (type, payload) frames, as they are."""
        stream = self._quic.get_next_available_stream_id()
        data = b"".join(encode_uint_var(kind) + encode_uint_var(len(body)) + body for kind, body in frames)
        self._quic.send_stream_data(stream, data, end)
        self.transmit()
        return stream

    @staticmethod
    def block(headers):
        """A QPACK block without the dynamic table, so that any stream may carry it."""
        pairs = [(name.encode(), value.encode()) for name, value in headers]
        _, block = Encoder().encode(0, pairs)
        return block

    async def reply(self, stream):
        """What came on that stream until it, or the connection, ended; {} when nothing did."""
        def over():
            reply = self.replies.get(stream, {})
            return self.ended or reply.get("ended") or "reset" in reply

        try:
            async with asyncio.timeout(PATIENCE):
                while not over():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        return {**self.replies.get(stream, {}), **(self.ended or {})}


def request(authority, path, method="GET"):
    return [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]


def breaches(authority, path):
    """(name, frames of one request stream); a frame is (type, headers or bytes)."""
    good = request(authority, path)
    without = lambda name: [pair for pair in good if pair[0] != name]
    return [
        ("duplicate :path", [(HEADERS, [*good, (":path", path)])]),
        ("duplicate :method", [(HEADERS, [*good, (":method", "GET")])]),
        ("pseudo-header after a regular one", [(HEADERS, [*without(":path"), ("accept", "*/*"), (":path", path)])]),
        ("connection header", [(HEADERS, [*good, ("connection", "keep-alive")])]),
        ("transfer-encoding header", [(HEADERS, [*good, ("transfer-encoding", "chunked")])]),
        ("GET with a content-length and no body", [(HEADERS, [*good, ("content-length", "10")])]),
        ("GET with a longer body than its content-length", [(HEADERS, [*good, ("content-length", "1")]), (DATA, b"abcd")]),
        ("GET with a body", [(HEADERS, good), (DATA, b"abcd")]),
        ("POST", [(HEADERS, request(authority, path, "POST")), (DATA, b"abcd")]),
        ("upper-case header name", [(HEADERS, [*good, ("Accept", "*/*")])]),
        ("unknown pseudo-header", [(HEADERS, [*good, (":peer", "1")])]),
        ("response pseudo-header", [(HEADERS, [*good, (":status", "200")])]),
        ("no :method", [(HEADERS, without(":method"))]),
        ("no :path", [(HEADERS, without(":path"))]),
        ("empty :path", [(HEADERS, [*without(":path"), (":path", "")])]),
        ("line feed in a value", [(HEADERS, [*good, ("x-test", "a\nb")])]),
        ("100 kB of headers", [(HEADERS, [*good, *[("x-test", "a" * 1000)] * 100])]),
        ("nothing at all", []),
        ("DATA before HEADERS", [(DATA, b"abcd"), (HEADERS, good)]),
        ("SETTINGS on a request stream", [(SETTINGS, b""), (HEADERS, good)]),
        ("headers that are not QPACK", [(HEADERS, b"\xff" * 40)]),
    ]


def connection(host, port):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE)
    return connect(host, port, configuration=configuration, create_protocol=Client)


async def get(host, port, authority, paths):
    async with connection(host, port) as client:
        streams = [client.raw((HEADERS, client.block(request(authority, path)))) for path in paths]
        return [await client.reply(stream) for stream in streams]


async def breach(host, port, authority, path, name, frames):
    async with connection(host, port) as client:
        encoded = [(kind, body if isinstance(body, bytes) else client.block(body)) for kind, body in frames]
        outcome = {"name": name, "reply": await client.reply(client.raw(*encoded))}
        if client.ended is None:
            good = client.raw((HEADERS, client.block(request(authority, path))))
            outcome["same connection"] = await client.reply(good)
    [outcome["new connection"]] = await get(host, port, authority, [path])
    return outcome


async def main():
    host, port, mode, *paths = sys.argv[1:]
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if mode == "get":
        lines = await get(host, int(port), authority, paths)
        for line in lines:
            print(json.dumps(line), flush=True)
        return
    [path] = paths
    for name, frames in breaches(authority, path):
        print(json.dumps(await breach(host, int(port), authority, path, name, frames)), flush=True)


asyncio.run(main())
