//! Announces and scrapes: the client side of every transport, on the core's codecs.
