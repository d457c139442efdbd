//! Paths, methods and replies: what HTTP/1.1, HTTP/2 and HTTP/3 have in common.
