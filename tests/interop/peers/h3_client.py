"""Sends HTTP/3 requests and protocol violations with aioquic. Prints the answers without judging them.

h3_client.py HOST PORT MODE, prints one JSON object per line:
  get PATH...     one GET per path on one connection, all at once
  breach          for each entry of BREACHES: the violation, then a valid request on the same connection
                  if it is still open, then one on a new connection
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

PATIENCE = 3
DATA, HEADERS, SETTINGS = 0, 1, 4


class Client(QuicConnectionProtocol):
    """Collects the server's answer on each request stream."""

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
        """Opens a request stream with exactly these (type, payload) frames."""
        stream = self._quic.get_next_available_stream_id()
        self._quic.send_stream_data(stream, b"".join(encode(kind, body) for kind, body in frames), end)
        self.transmit()
        return stream

    def unidirectional(self, data):
        """Opens a unidirectional stream that starts with these bytes."""
        stream = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self._quic.send_stream_data(stream, data)
        self.transmit()
        return stream

    def control(self, data, end=False):
        """Sends more bytes on the control stream."""
        self._quic.send_stream_data(self.h3._local_control_stream_id, data, end)
        self.transmit()
        return self.h3._local_control_stream_id

    def given_up(self, data, reset=False, stop=False):
        """Opens a request stream and abandons it: 0x10c is H3_REQUEST_CANCELLED."""
        stream = self._quic.get_next_available_stream_id()
        self._quic.send_stream_data(stream, data, end_stream=not reset)
        self.transmit()
        if stop:
            self._quic.stop_stream(stream, 0x10C)
        if reset:
            self._quic.reset_stream(stream, 0x10C)
        self.transmit()
        return stream

    @staticmethod
    def block(headers):
        """A QPACK block without the dynamic table, valid on any stream."""
        pairs = [(name.encode(), value.encode()) for name, value in headers]
        _, block = Encoder().encode(0, pairs)
        return block

    async def reply(self, stream):
        """Everything received on a stream until it or the connection ended; {} if nothing was."""
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


def encode(kind, body):
    """One frame."""
    return encode_uint_var(kind) + encode_uint_var(len(body)) + body


def request(authority, path, method="GET"):
    return [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]


def breaches(authority, path):
    """The violations as (expected, name, act): `act(client)` commits it and returns the stream to watch.

    expected: `refused`, `served` (unusual but allowed), or `any` (the client leaves without waiting).
    """
    good = request(authority, path)

    def without(name):
        return [pair for pair in good if pair[0] != name]

    def frames(*them):
        return lambda client: client.raw(
            *[(kind, body if isinstance(body, bytes) else client.block(body)) for kind, body in them]
        )

    def headers(*lines):
        return frames((HEADERS, [*lines]))

    return [
        ("refused", "duplicate :path", headers(*good, (":path", path))),
        ("refused", "duplicate :method", headers(*good, (":method", "GET"))),
        ("refused", "pseudo-header after a regular one", headers(*without(":path"), ("accept", "*/*"), (":path", path))),
        ("refused", "connection header", headers(*good, ("connection", "keep-alive"))),
        ("refused", "transfer-encoding header", headers(*good, ("transfer-encoding", "chunked"))),
        ("refused", "GET with a content-length and no body", headers(*good, ("content-length", "10"))),
        ("refused", "GET with a longer body than its content-length", frames((HEADERS, [*good, ("content-length", "1")]), (DATA, b"abcd"))),
        ("refused", "GET with a body", frames((HEADERS, good), (DATA, b"abcd"))),
        ("refused", "POST", frames((HEADERS, request(authority, path, "POST")), (DATA, b"abcd"))),
        ("refused", "upper-case header name", headers(*good, ("Accept", "*/*"))),
        ("refused", "unknown pseudo-header", headers(*good, (":peer", "1"))),
        ("refused", "response pseudo-header", headers(*good, (":status", "200"))),
        ("refused", "no :method", headers(*without(":method"))),
        ("refused", "no :path", headers(*without(":path"))),
        ("refused", "empty :path", headers(*without(":path"), (":path", ""))),
        ("refused", "line feed in a value", headers(*good, ("x-test", "a\nb"))),
        ("refused", "100 kB of headers", headers(*good, *[("x-test", "a" * 1000)] * 100)),
        ("refused", "nothing at all", frames()),
        ("refused", "DATA before HEADERS", frames((DATA, b"abcd"), (HEADERS, good))),
        ("refused", "SETTINGS on a request stream", frames((SETTINGS, b""), (HEADERS, good))),
        ("refused", "headers that are not QPACK", frames((HEADERS, b"\xff" * 40))),
        ("refused", "a second control stream", lambda client: client.unidirectional(b"\0\4\0")),
        ("refused", "SETTINGS twice", lambda client: client.control(b"\4\0")),
        ("refused", "DATA on the control stream", lambda client: client.control(b"\0\1a")),
        ("refused", "the control stream ends", lambda client: client.control(b"", end=True)),
        ("served", "an unknown frame before HEADERS", frames((0x21, b"grease"), (HEADERS, good))),
        ("served", "an unknown stream type", lambda client: (client.unidirectional(b"\x21abcd"), headers(*good)(client))[1]),
        ("any", "reset within the headers", lambda client: client.given_up(b"\1\x40\x80ab", reset=True)),
        ("any", "reset after the headers", lambda client: client.given_up(encode(HEADERS, client.block(good)), reset=True)),
        ("any", "no wish for the answer", lambda client: client.given_up(encode(HEADERS, client.block(good)), stop=True)),
        ("any", "reset, and no wish for the answer", lambda client: client.given_up(encode(HEADERS, client.block(good)), reset=True, stop=True)),
    ]


def connection(host, port):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], verify_mode=ssl.CERT_NONE)
    return connect(host, port, configuration=configuration, create_protocol=Client)


async def get(host, port, authority, paths):
    async with connection(host, port) as client:
        streams = [client.raw((HEADERS, client.block(request(authority, path)))) for path in paths]
        return [await client.reply(stream) for stream in streams]


async def breach(host, port, authority, path, expected, name, act):
    async with connection(host, port) as client:
        stream = act(client)
        outcome = {"expected": expected, "name": name}
        if expected != "any":
            outcome["reply"] = await client.reply(stream)
        if client.ended is None:
            good = client.raw((HEADERS, client.block(request(authority, path))))
            outcome["same connection"] = await client.reply(good)
            # The connection may have ended because of the violation, but then as a whole.
            if "closed" in outcome["same connection"]:
                outcome.setdefault("reply", {}).update(outcome.pop("same connection"))
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
    for one in breaches(authority, path):
        print(json.dumps(await breach(host, int(port), authority, path, *one)), flush=True)


asyncio.run(main())
