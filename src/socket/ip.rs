//! UDP and TCP sockets on IPv4 and IPv6: dual stack, SO_REUSEPORT, buffer sizes.
