//! QUIC connection ids that prove which remote received them.
//!
//! ```text
//! nonce (16 bits) | keyed hash of the remote and the nonce (48)
//! ```
//!
//! QUIC issues most ids under encryption, where the socket does not see them. The hash proves that
//! an id was given to a remote without a table of ids, which strangers could fill. To anyone else
//! such ids look random, as RFC 9000 section 5.1 requires.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use quinn_proto::{ConnectionId, ConnectionIdGenerator};

use super::quic::{OWN_ID, Token};

const MAC: u64 = (1 << 48) - 1;

/// Makes and checks connection ids. The key is random in each process.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionIds(RandomState);

impl ConnectionIds {
    fn mint(&self, remote: SocketAddr, nonce: u16) -> Token {
        Token(u64::from(nonce) << 48 | self.0.hash_one((remote, nonce)) & MAC)
    }

    /// Whether this id was given to the remote with this synthetic address.
    pub(super) fn given_to(&self, remote: SocketAddr, id: Token) -> bool {
        self.mint(remote, (id.0 >> 48) as u16) == id
    }
}

/// The remote that a QUIC endpoint makes the next connection ids for. Set it before each call that
/// makes some.
#[derive(Debug, Clone)]
pub(crate) struct Recipient(Arc<Mutex<Option<SocketAddr>>>);

impl Recipient {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    pub(crate) fn set(&self, remote: SocketAddr) {
        *self.0.lock() = Some(remote);
    }
}

/// Makes the connection ids of an endpoint.
pub(super) struct Generator {
    ids: ConnectionIds,
    recipient: Recipient,
    /// Ids made so far.
    made: u64,
}

impl Generator {
    pub(super) const fn new(ids: ConnectionIds, recipient: Recipient) -> Self {
        Self {
            ids,
            recipient,
            made: 0,
        }
    }
}

impl ConnectionIdGenerator for Generator {
    fn generate_cid(&mut self) -> ConnectionId {
        self.made += 1;
        // Without the key an id cannot be predicted.
        let random = self.ids.0.hash_one(self.made);
        let id = match *self.recipient.0.lock() {
            Some(remote) => self.ids.mint(remote, random as u16).0,
            // A random id, which proves nothing.
            None => random,
        };
        ConnectionId::new(&id.to_be_bytes())
    }

    fn cid_len(&self) -> usize {
        OWN_ID
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(any(test, fuzzing))]
impl ConnectionIds {
    /// A connection id of this remote.
    pub(super) fn some(&self, remote: SocketAddr) -> Token {
        self.mint(remote, 7)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_proves_only_to_whom_it_was_given() {
        let ids = ConnectionIds::default();
        let recipient = Recipient::new();
        let mut generator = Generator::new(ids.clone(), recipient.clone());
        let mut next = || {
            let id = generator.generate_cid();
            Token(u64::from_be_bytes(id[..].try_into().unwrap()))
        };
        let [one, other]: [SocketAddr; 2] =
            ["[fd5c::1]:1", "[fd5c::1]:2"].map(|it| it.parse().unwrap());
        let nobodys = next();
        recipient.set(one);
        for _ in 0..100 {
            let id = next();
            assert!(ids.given_to(one, id));
            assert!(!ids.given_to(other, id));
            assert!(!ids.given_to(one, Token(id.0 ^ 1)));
            assert!(!ConnectionIds::default().given_to(one, id));
        }
        assert!(!ids.given_to(one, nobodys));
    }
}
