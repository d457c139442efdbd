//! Bencode (BEP 3): the writer of the replies, and a bounded check for what strangers send.
