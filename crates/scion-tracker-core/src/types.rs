//! Small value types used by every module: info hash, peer id, time, randomness.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// The random number generator. The caller seeds it (with [`Rng::with_seed`], from the system's
/// entropy) and passes it in; the core never creates one.
pub type Rng = fastrand::Rng;

/// The 20 bytes that name a swarm: the SHA-1 info hash of BEP 3, or the first 20 bytes of the
/// SHA-256 info hash of BEP 52.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct InfoHash(pub [u8; 20]);

// Not derived: an announce hashes it several times, and the length that an array writes is always the same.
impl Hash for InfoHash {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl InfoHash {
    /// From 20 bytes, or from the 32 bytes of a version 2 hash, which are truncated (BEP 52).
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        match bytes.len() {
            20 | 32 => bytes.first_chunk().copied().map(Self),
            _ => None,
        }
    }
}

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 40 (or, for version 2, 64) hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an info hash is 40 hexadecimal digits, or 64 for a version 2 torrent")]
pub struct InfoHashError;

impl FromStr for InfoHash {
    type Err = InfoHashError;

    /// Reads hexadecimal digits of either case.
    fn from_str(s: &str) -> Result<Self, InfoHashError> {
        let digits = s.as_bytes();
        if !matches!(digits.len(), 40 | 64) || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(InfoHashError);
        }
        let mut bytes = [0; 20];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let nibble = |digit: u8| (digit as char).to_digit(16).unwrap_or_default() as u8;
            *byte = nibble(pair[0]) << 4 | nibble(pair[1]);
        }
        Ok(Self(bytes))
    }
}

/// The 20 bytes that a peer chooses as its name (BEP 20). Never a key on its own, because the peer
/// chooses it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 20]);

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// Seconds since the tracker started, from the caller's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(u32);

impl Time {
    /// This many seconds after the start.
    pub const fn from_secs(secs: u32) -> Self {
        Self(secs)
    }

    /// Seconds since the start.
    pub const fn as_secs(self) -> u32 {
        self.0
    }

    /// Seconds from `earlier` to this time; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_hash_reads_hex_of_both_lengths() {
        let hex = "0123456789abcdefABCD0123456789abcdef0123";
        let hash: InfoHash = hex.parse().unwrap();
        assert_eq!(hash.to_string(), hex.to_lowercase());
        let v2 = format!("{hex}{}", "0".repeat(24));
        assert_eq!(v2.parse::<InfoHash>().unwrap(), hash);
        for bad in [
            "",
            "01",
            &hex[1..],
            &format!("{hex}0"),
            &hex.replace('0', "g"),
            &"é".repeat(20),
        ] {
            assert_eq!(bad.parse::<InfoHash>(), Err(InfoHashError), "{bad}");
        }
    }

    #[test]
    fn info_hash_from_bytes() {
        assert_eq!(InfoHash::from_slice(&[7; 20]), Some(InfoHash([7; 20])));
        assert_eq!(InfoHash::from_slice(&[7; 32]), Some(InfoHash([7; 20])));
        for length in (0..40).filter(|n| ![20, 32].contains(n)) {
            assert_eq!(InfoHash::from_slice(&[7; 40][..length]), None);
        }
    }
}
