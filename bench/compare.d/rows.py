"""What is compared: for each row the load, the programs that bear it, and the goals."""

from dataclasses import dataclass, field

from programs import (
    AQUATIC_HTTP,
    AQUATIC_UDP,
    AQUATIC_URING,
    FLOOR,
    NODE,
    OPENTRACKER,
    TORRUST,
    TRACKER,
)
from theirs import HTTP_LOAD, UDP_LOAD


@dataclass(frozen=True)
class Entry:
    """A program in a row. The first of a row is this tracker, to which the others are compared."""

    label: str
    program: object
    scheme: str
    # How it is started, and what of the load is different for it.
    options: dict = field(default_factory=dict)
    load: dict = field(default_factory=dict)
    # Whether it gives as many peers as are wanted, so that it has to be asked for as many as the
    # first one gives.
    echo: bool = False
    # Cores of it, if other than those of the row.
    cores: int = 0


@dataclass(frozen=True)
class Goal:
    """What the first entry may cost at most, in parts of another, or in the unit of the row."""

    at_most: float
    of: str = ""


@dataclass(frozen=True)
class Row:
    key: str
    title: str
    # Options of `scion-tracker bench`.
    load: dict
    entries: tuple
    goals: tuple = ()
    # What a reader has to know besides.
    note: str = ""
    # "cpu": server CPU seconds per million replies. "peer memory", "connection memory": bytes each.
    measure: str = "cpu"
    # Cores of the server. The load runs on the others; if there are none, on the same.
    cores: int = 1
    # Where the load is from, if not from `scion-tracker bench`; `load` has its settings then.
    by: object = None


# Only announces: what a scrape or a stop costs differs too much between the programs.
ANNOUNCES = {"mix": "announce=1", "numwant": 30}
# Sockets with an address each, so that two million peers find ports.
SOCKETS = {"connections": 40, "sources": 40, "in-flight": 16}
# Swarms so large that all replies are full.
FULL = {"torrents": 1_000, "zipf": 0, "peers": 100_000}
EVEN = {"torrents": 10_000, "zipf": 0, "peers": 200_000}
PLACES = {"ases": 10, "isds": 3}
# It takes no notice of the number over UDP, and gives as many as it has.
TORRUST_UDP = {"numwant": 74}

UDP = Row(
    "udp",
    "UDP announces, a million torrents",
    ANNOUNCES | SOCKETS | {"torrents": 1_000_000, "zipf": 1, "peers": 2_000_000},
    (
        Entry("scion-tracker", TRACKER, "udp"),
        Entry("floor: recvmmsg/sendmmsg echo", FLOOR, "udp", echo=True),
        Entry("aquatic_udp, io_uring", AQUATIC_URING, "udp"),
        Entry("aquatic_udp, mio", AQUATIC_UDP, "udp"),
        Entry("opentracker", OPENTRACKER, "udp"),
    ),
    (Goal(1.13, "floor: recvmmsg/sendmmsg echo"), Goal(0.90, "aquatic_udp, io_uring")),
    "Popular torrents have up to 139,000 peers, which torrust-tracker copies at each announce: it is only "
    "below, with even swarms.",
)


UDP_SMALL = Row(
    "udp-small",
    "UDP announces, ten thousand torrents of 20 peers",
    ANNOUNCES | SOCKETS | EVEN,
    (
        Entry("scion-tracker", TRACKER, "udp"),
        Entry("floor: recvmmsg/sendmmsg echo", FLOOR, "udp", echo=True),
        Entry("aquatic_udp, io_uring", AQUATIC_URING, "udp"),
        Entry("aquatic_udp, mio", AQUATIC_UDP, "udp"),
        Entry("opentracker", OPENTRACKER, "udp"),
        Entry("torrust-tracker", TORRUST, "udp", load=TORRUST_UDP),
        Entry("bittorrent-tracker (node)", NODE, "udp"),
    ),
    (Goal(1.13, "floor: recvmmsg/sendmmsg echo"), Goal(0.90, "aquatic_udp, io_uring")),
)

UDP_THEIRS = Row(
    "udp-theirs",
    "UDP as aquatic's load program asks: connects and announces in equal parts",
    {"extra_statistics": False, "requests.number_of_torrents": 100_000, "requests.number_of_peers": 200_000}
    | {"requests.peer_seeder_probability": 0.0},
    (
        Entry("scion-tracker", TRACKER, "udp"),
        Entry("aquatic_udp, io_uring", AQUATIC_URING, "udp"),
        Entry("aquatic_udp, mio", AQUATIC_UDP, "udp"),
    ),
    (Goal(0.90, "aquatic_udp, io_uring"),),
    "Otherwise its defaults, but with so few peers that all are there after one run, and with leechers "
    "alone: this tracker gives seeds no seeds, and so less. opentracker is built to know its torrents "
    "beforehand.",
    by=UDP_LOAD,
)

HTTP = Row(
    "http",
    "HTTP/1.1 announces, kept connections",
    ANNOUNCES | EVEN | {"connections": 32},
    (
        Entry("scion-tracker", TRACKER, "http"),
        Entry("torrust-tracker", TORRUST, "http"),
        Entry("aquatic_http, on two cores", AQUATIC_HTTP, "http", cores=2),
        Entry("bittorrent-tracker (node)", NODE, "http"),
    ),
    (Goal(0.60, "torrust-tracker"),),
    "aquatic_http needs two threads, one for sockets and one for swarms, which on one core cost ten times as "
    "much; so it has two, which it shares with the load where there are no others.",
)

HTTP_FLOOR = Row(
    "http-floor",
    "HTTP/1.1 announces, kept connections, against a server of hyper that answers all alike",
    ANNOUNCES | FULL | {"connections": 32},
    (
        Entry("scion-tracker", TRACKER, "http"),
        Entry("floor: hyper", FLOOR, "http"),
    ),
    (Goal(1.00, "floor: hyper"),),
    "The floor reads no query and tracks nothing. What the framing costs alone is said below.",
)

HTTP_THEIRS = Row(
    "http-theirs",
    "HTTP/1.1 announces as aquatic's load program asks, kept connections",
    {"enable_tls": False, "num_connections": 32},
    (
        Entry("scion-tracker", TRACKER, "http"),
        Entry("torrust-tracker", TORRUST, "http"),
        Entry("aquatic_http, on two cores", AQUATIC_HTTP, "http", cores=2),
    ),
    (Goal(0.60, "torrust-tracker"),),
    "Otherwise its defaults. It does not say how many peers it is given.",
    by=HTTP_LOAD,
)

HTTP_NEW = Row(
    "http-new",
    "HTTP/1.1 announces, a connection each",
    # So many addresses that ports of closed connections need not be used again at once.
    ANNOUNCES | {"torrents": 1_000, "zipf": 0, "peers": 20_000}
    | {"connections": 64, "sources": 64, "new-connections": True},
    (
        Entry("scion-tracker", TRACKER, "http"),
        Entry("opentracker", OPENTRACKER, "http"),
        Entry("torrust-tracker", TORRUST, "http"),
    ),
    (Goal(1.00, "opentracker"),),
)


def http3(key, title, load, *limits):
    """A row of HTTP/3 against a server that answers all with the same reply."""
    bare = "floor: quinn + h3, default limits"
    return Row(
        key,
        title,
        ANNOUNCES | FULL | load | {"insecure": True},
        (
            Entry("scion-tracker", TRACKER, "h3"),
            Entry(bare, FLOOR, "h3"),
            Entry("floor: quinn + h3, a tracker's limits", FLOOR, "h3", {"tuned": True}),
        ),
        tuple(Goal(limit, bare) for limit in limits),
    )


HTTP3 = http3(
    "h3", "HTTP/3 announces, 100 connections with 1 stream", {"connections": 100, "in-flight": 1}, 1.10, 0.75
)
HTTP3_STREAMS = http3(
    "h3-streams", "HTTP/3 announces, 10 connections with 8 streams", {"connections": 10, "in-flight": 8}, 1.10, 0.75
)
HTTP3_NEW = http3(
    "h3-new",
    "HTTP/3 announces, a connection each, full handshakes",
    {"connections": 64, "sources": 64, "new-connections": True},
    0.75,
)


def scion(key, title, load, transport):
    """A row of SCION against IP: the same program, the same peers in the same ASes."""
    same = "over IP, the same places claimed"
    return Row(
        key,
        title,
        ANNOUNCES | FULL | load | {"insecure": True},
        (
            Entry("scion-tracker, over SCION", TRACKER, f"scion-{transport}", load=PLACES),
            Entry(same, TRACKER, transport, load=PLACES),
            Entry("over IP, no places", TRACKER, transport),
        ),
        (Goal(1.10, same),),
        "Packets over SCION carry a path with one link. Peers in replies over SCION take 14 bytes, over IP "
        "6, and where the requester claims a place both lists are given.",
    )


SCION_UDP = scion("scion-udp", "SCION against IP: UDP announces", SOCKETS, "udp")
SCION_HTTP3 = scion(
    "scion-h3",
    "SCION against IP: HTTP/3 announces, 100 connections with 1 stream",
    {"connections": 100, "in-flight": 1},
    "h3",
)

CORES = Row(
    "cores",
    "Two cores against one: UDP announces",
    ANNOUNCES | SOCKETS | EVEN | {"threads": 2},
    (
        Entry("scion-tracker, two workers", TRACKER, "udp", {"workers": 2}),
        Entry("one worker", TRACKER, "udp"),
    ),
    # 1.7 times the work of one core, if two cores are busy: 2 / 1.7 of the CPU for each reply.
    (Goal(1.18, "one worker"),),
    "Twice the share of CPU for each reply that is saved is the speed-up of two cores that have nothing "
    "else to do: 2 / ratio. Time in which a worker waits for a lock asleep is not in it.",
    cores=2,
)

SWARM = Row(
    "swarm",
    "One swarm of a million peers: UDP announces",
    ANNOUNCES | SOCKETS | {"torrents": 1, "peers": 1_000_000},
    (
        Entry("scion-tracker", TRACKER, "udp"),
        Entry("scion-tracker, one swarm of 100", TRACKER, "udp", load={"peers": 100}),
        Entry(
            "scion-tracker, 10,000 swarms of 100", TRACKER, "udp", load={"torrents": 10_000, "zipf": 0}
        ),
        Entry("aquatic_udp, io_uring", AQUATIC_URING, "udp"),
        Entry("aquatic_udp, mio", AQUATIC_UDP, "udp"),
        Entry("opentracker", OPENTRACKER, "udp"),
    ),
    (Goal(1.50, "scion-tracker, one swarm of 100"),),
)

PLACE = Row(
    "place",
    "Selection by place against random: UDP announces of peers in 100 ASes",
    ANNOUNCES | SOCKETS | {"torrents": 1_000, "zipf": 0, "peers": 200_000, "ases": 100, "isds": 10},
    (
        Entry("scion-tracker, prefer", TRACKER, "udp"),
        Entry("random", TRACKER, "udp", {"selection": "random"}),
    ),
    (Goal(1.15, "random"),),
)


def memory(key, title, load, limit, *rivals):
    """A row of memory: what the resident set grows by when peers announce themselves over UDP."""
    return Row(
        key,
        title,
        ANNOUNCES | SOCKETS | load,
        (Entry("scion-tracker", TRACKER, "udp"), *rivals),
        (Goal(limit),),
        measure="peer memory",
    )


QUICK = (Entry("aquatic_udp, mio", AQUATIC_UDP, "udp"), Entry("opentracker", OPENTRACKER, "udp"))
MEMORY = memory(
    "memory",
    "Memory, 100,000 torrents of 10 peers",
    {"torrents": 100_000, "zipf": 0, "peers": 1_000_000},
    64,
    *QUICK,
    Entry("torrust-tracker", TORRUST, "udp", load=TORRUST_UDP),
)
MEMORY_ONE = memory(
    "memory-one", "Memory, one torrent of a million peers", {"torrents": 1, "peers": 1_000_000}, 48, *QUICK
)
MEMORY_FLAT = memory(
    "memory-flat",
    "Memory, a million torrents of one or two peers",
    {"torrents": 1_000_000, "zipf": 0, "peers": 1_000_000},
    130,
    *QUICK,
)

QUIC = Row(
    "quic",
    "Memory, QUIC connections that are all but idle",
    ANNOUNCES | {"connections": 2000, "rate": 200, "torrents": 100, "peers": 2000, "insecure": True},
    (
        Entry("scion-tracker", TRACKER, "h3"),
        Entry("floor: quinn + h3, default limits", FLOOR, "h3"),
        Entry("floor: quinn + h3, a tracker's limits", FLOOR, "h3", {"tuned": True}),
    ),
    (Goal(45_000),),
    measure="connection memory",
)

ROWS = (
    UDP,
    UDP_SMALL,
    UDP_THEIRS,
    HTTP,
    HTTP_FLOOR,
    HTTP_THEIRS,
    HTTP_NEW,
    HTTP3,
    HTTP3_STREAMS,
    HTTP3_NEW,
    SCION_UDP,
    SCION_HTTP3,
    CORES,
    SWARM,
    PLACE,
    MEMORY,
    MEMORY_ONE,
    MEMORY_FLAT,
    QUIC,
)
