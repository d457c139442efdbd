//! HTTP/1.1 and HTTP/2 on one TCP port, with TLS or plain.
