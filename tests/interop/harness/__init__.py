"""The environment of the cases: a network, a tracker, torrents, and processes that always end."""
