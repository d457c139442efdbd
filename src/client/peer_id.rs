//! Reads the name and version of a client program from its peer id (BEP 20).

use std::fmt;

use scion_tracker_core::types::PeerId;

/// A client program, as stated in a peer id.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Software {
    /// Name of the program, or its code if the code is unknown.
    pub name: String,
    /// Version in its usual form.
    pub version: String,
}

impl fmt::Display for Software {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// Codes of the Azureus style, `-XX1234-`.
const AZUREUS: &[(&str, &str)] = &[
    ("7T", "aTorrent"),
    ("AG", "Ares"),
    ("AZ", "Vuze"),
    ("BC", "BitComet"),
    ("BI", "BiglyBT"),
    ("BT", "BitTorrent"),
    ("BW", "BitWombat"),
    ("CT", "CTorrent"),
    ("DE", "Deluge"),
    ("FD", "Free Download Manager"),
    ("FL", "Flud"),
    ("GT", "anacrolix/torrent"),
    ("HL", "Halite"),
    ("JT", "JavaTorrent"),
    ("KT", "KTorrent"),
    ("LT", "libtorrent"),
    ("lt", "rTorrent"),
    ("LW", "LimeWire"),
    ("NE", "BT Next Evolution"),
    ("PI", "PicoTorrent"),
    ("PT", "Popcorn Time"),
    ("qB", "qBittorrent"),
    ("RT", "Retriever"),
    ("SC", "scion-tracker"),
    ("SD", "Xunlei"),
    ("SZ", "Shareaza"),
    ("TR", "Transmission"),
    ("TT", "TuoTu"),
    ("UM", "uTorrent for Mac"),
    ("UT", "uTorrent"),
    ("UW", "uTorrent Web"),
    ("WD", "WebTorrent Desktop"),
    ("WW", "WebTorrent"),
    ("XL", "Xunlei"),
];

/// Codes of the Shadow style, `X123--`.
const SHADOW: &[(u8, &str)] = &[
    (b'A', "ABC"),
    (b'O', "Osprey Permaseed"),
    (b'Q', "BTQueue"),
    (b'R', "Tribler"),
    (b'S', "Shadow's client"),
    (b'T', "BitTornado"),
    (b'U', "UPnP NAT BitTorrent"),
];

/// Reads the program from a peer id. `None` if the id has none of the usual forms.
pub fn software(id: &PeerId) -> Option<Software> {
    azureus(&id.0)
        .or_else(|| dashed(&id.0))
        .or_else(|| shadow(&id.0))
}

/// Reads `-LT2110-`: two letters, and four digits of 0-9, A-Z, a-z with one number each.
fn azureus(id: &[u8; 20]) -> Option<Software> {
    let [b'-', a, b, v1, v2, v3, v4, b'-', ..] = *id else {
        return None;
    };
    let code = [a, b];
    let code = text(&code)?;
    let numbers = [number(v1)?, number(v2)?, number(v3)?, number(v4)?];
    let version = match code {
        // Two digits per number: 0208 is 2.8.
        "WW" | "WD" => dotted(&[numbers[0] * 10 + numbers[1], numbers[2] * 10 + numbers[3]]),
        // 3000 is 3.00. Since version 4.0, 4030 is 4.0.3.
        "TR" if numbers[0] < 4 => format!("{}.{}{}", numbers[0], numbers[1], numbers[2]),
        _ => dotted(&numbers),
    };
    Some(Software {
        name: lookup(code).to_owned(),
        version,
    })
}

/// Reads `M7-9-2--` of the mainline client and `A2-1-36-0-` of aria2: numbers between dashes.
fn dashed(id: &[u8; 20]) -> Option<Software> {
    let (name, rest) = match &id[..] {
        [b'M', rest @ ..] => ("BitTorrent", rest),
        [b'A', b'2', b'-', rest @ ..] => ("aria2", rest),
        _ => return None,
    };
    let mut numbers = Vec::new();
    // The bytes after the third dash are random.
    for part in rest.split(|b| *b == b'-').take(3) {
        let digits = !part.is_empty() && part.len() <= 3 && part.iter().all(u8::is_ascii_digit);
        match text(part).filter(|_| digits).and_then(|n| n.parse().ok()) {
            Some(n) => numbers.push(n),
            None => return None,
        }
    }
    (numbers.len() == 3).then(|| Software {
        name: name.to_owned(),
        version: dotted(&numbers),
    })
}

/// Reads `T03I--`: a letter, up to five digits of the version, and dashes.
fn shadow(id: &[u8; 20]) -> Option<Software> {
    let (_, name) = SHADOW.iter().find(|(letter, _)| *letter == id[0])?;
    let version = &id[1..6];
    let length = version.iter().position(|b| *b == b'-')?;
    let rest_is_dashes = version[length..].iter().all(|b| *b == b'-') && id[6..8] == *b"--";
    if length == 0 || !rest_is_dashes {
        return None;
    }
    let numbers: Option<Vec<_>> = version[..length].iter().map(|b| number(*b)).collect();
    Some(Software {
        name: (*name).to_owned(),
        version: dotted(&numbers?),
    })
}

fn lookup(code: &str) -> &str {
    AZUREUS
        .iter()
        .find(|(known, _)| *known == code)
        .map_or(code, |(_, name)| name)
}

fn number(digit: u8) -> Option<u32> {
    match digit {
        b'0'..=b'9' => Some(u32::from(digit - b'0')),
        b'A'..=b'Z' => Some(u32::from(digit - b'A') + 10),
        b'a'..=b'z' => Some(u32::from(digit - b'a') + 36),
        _ => None,
    }
}

/// Joins at least two numbers with dots, without the zeros at the end.
fn dotted(numbers: &[u32]) -> String {
    let significant = numbers.iter().rposition(|n| *n != 0).map_or(0, |at| at + 1);
    let shown = significant.max(2).min(numbers.len());
    let numbers: Vec<_> = numbers[..shown].iter().map(u32::to_string).collect();
    numbers.join(".")
}

fn text(bytes: &[u8]) -> Option<&str> {
    let graphic = bytes.iter().all(u8::is_ascii_alphanumeric);
    std::str::from_utf8(bytes).ok().filter(|_| graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_of_peer_ids() {
        for (id, expected) in [
            (b"-LT20A0-2Hk2RLxj.gRc", Some("libtorrent 2.0.10")),
            (b"-LT2110-2Hk2RLxj.gRc", Some("libtorrent 2.1.1")),
            (b"-TR3000-q6tr8h5pamni", Some("Transmission 3.00")),
            (b"-TR4030-q6tr8h5pamni", Some("Transmission 4.0.3")),
            (b"-WW0208-I0gaJaprA3cW", Some("WebTorrent 2.8")),
            (b"-qB4650-aaaaaaaaaaaa", Some("qBittorrent 4.6.5")),
            (b"-XX1000-aaaaaaaaaaaa", Some("XX 1.0")),
            (
                b"A2-1-36-0-\x91\xdb\xc7e\xcbR\x8f\xa2\x9f\x07",
                Some("aria2 1.36"),
            ),
            (b"M7-9-2--aaaaaaaaaaaa", Some("BitTorrent 7.9.2")),
            (b"T03I--00pcJbq2tyaaaa", None),
            (b"T03I----pcJbq2tyaaaa", Some("BitTornado 0.3.18")),
            (b"S58B-----aaaaaaaaaaa", Some("Shadow's client 5.8.11")),
            (b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", None),
            (b"-------------------- ".first_chunk::<20>().unwrap(), None),
            (b"-LT20A0xaaaaaaaaaaaa", None),
        ] {
            let found = software(&PeerId(*id)).map(|software| software.to_string());
            assert_eq!(found.as_deref(), expected, "{}", id.escape_ascii());
        }
    }

    #[test]
    fn any_id_is_read_or_not() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let mut id = [0; 20];
            rng.fill(&mut id);
            for byte in &mut id {
                *byte = b"-A2MST0z\xff"[usize::from(*byte) % 9];
            }
            let _ = software(&PeerId(id));
        }
    }
}
