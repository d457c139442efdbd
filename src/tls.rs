//! Certificates: loaded from PEM files, or self-signed once and kept; reloaded without dropping connections.
