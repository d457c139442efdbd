//! Passkeys: secrets in the URL of a private tracker that identify its members.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::hint::black_box;
use std::num::NonZeroU8;
use std::str::FromStr;

use subtle::ConstantTimeEq as _;

/// A passkey: 1 to 64 characters of `[0-9A-Za-z_-]`. It is not the `key` of an announce.
///
/// The time of a comparison does not depend on where two passkeys differ. A passkey is a secret, so
/// `Debug` shows its first two characters at most, and nothing of a short one.
#[derive(Clone, Copy)]
pub struct Passkey {
    length: NonZeroU8,
    /// Zeros after the passkey.
    bytes: [u8; Self::MAX],
}

/// The text is not a passkey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a passkey is 1 to 64 characters of 0-9, A-Z, a-z, _ and -")]
pub struct PasskeyError;

impl Passkey {
    /// Most characters of a passkey.
    pub const MAX: usize = 64;

    /// Parses a passkey. `None` if it is empty, too long, or has other characters.
    pub fn from_bytes(text: &[u8]) -> Option<Self> {
        let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let length = u8::try_from(text.len()).ok().and_then(NonZeroU8::new)?;
        let mut bytes = [0; Self::MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        text.iter()
            .all(is_allowed)
            .then_some(Self { length, bytes })
    }

    /// The characters.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length.get())]
    }
}

impl PartialEq for Passkey {
    fn eq(&self, other: &Self) -> bool {
        // All bits first, then one comparison: a comparison per byte takes six times as long.
        let words = self.bytes.as_chunks::<8>().0.iter();
        let words = words.zip(other.bytes.as_chunks::<8>().0);
        let differ = words.fold(0, |differ, (a, b)| {
            differ | (u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b))
        });
        black_box(differ).ct_eq(&0).into()
    }
}

impl Eq for Passkey {}

impl Hash for Passkey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // No length in front: equal bytes are equal passkeys, as no passkey has a zero byte.
        state.write(self.as_bytes());
    }
}

impl FromStr for Passkey {
    type Err = PasskeyError;

    fn from_str(text: &str) -> Result<Self, PasskeyError> {
        Self::from_bytes(text.as_bytes()).ok_or(PasskeyError)
    }
}

impl fmt::Debug for Passkey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Two characters of few are too many.
        let shown = if self.as_bytes().len() < 8 { 0 } else { 2 };
        write!(f, "{}…", self.as_bytes()[..shown].escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_may_be_a_passkey() {
        let longest = "x".repeat(64);
        for text in ["a", "0", "_-", "Z9_-a", &longest] {
            assert_eq!(text.parse::<Passkey>().unwrap().as_bytes(), text.as_bytes());
        }
        for text in [
            "",
            "a b",
            "a/b",
            "ä",
            "a.",
            &"x".repeat(65),
            &"x".repeat(257),
        ] {
            assert_eq!(text.parse::<Passkey>(), Err(PasskeyError), "{text}");
        }
    }

    #[test]
    fn differs_by_every_character_and_the_length() {
        let passkey = |text: &str| text.parse::<Passkey>().unwrap();
        assert_eq!(passkey("abc"), passkey("abc"));
        for other in ["abd", "xbc", "ab", "abcd", "ABC"] {
            assert_ne!(passkey("abc"), passkey(other));
        }
    }

    #[test]
    fn debug_hides_the_secret() {
        let passkey: Passkey = "topsecret".parse().unwrap();
        assert_eq!(format!("{passkey:?}"), "to…");
        for short in ["a", "ab", "abcdefg"] {
            let passkey: Passkey = short.parse().unwrap();
            assert_eq!(format!("{passkey:?}"), "…");
        }
    }

    #[test]
    fn an_absent_passkey_takes_no_room_of_its_own() {
        assert_eq!(size_of::<Option<Passkey>>(), size_of::<Passkey>());
    }
}
