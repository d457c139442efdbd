//! SCMP, the SCION control message protocol: path errors and echo.
//!
//! ```text
//! 0  type (1) | code (1) | checksum (2)
//! 4  fields of the type; errors then quote as much of the packet as fits
//! ```
//! [SCMP](https://docs.scion.org/en/latest/protocols/scmp.html)

use super::template::BuildError;
use super::{Packet, PacketError, Path, SCMP, UDP, header, skip_extensions, udp};
use crate::address::{Host, IsdAs};

const DESTINATION_UNREACHABLE: u8 = 1;
const PACKET_TOO_BIG: u8 = 2;
const PARAMETER_PROBLEM: u8 = 4;
const EXTERNAL_INTERFACE_DOWN: u8 = 5;
const INTERNAL_CONNECTIVITY_DOWN: u8 = 6;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;

/// A control message. `quote` is the beginning of the packet that an error is about; see
/// [`Quoted::parse`]. SCMP messages are not authenticated, so believe an error only if the quote is
/// a packet that was really sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scmp<'a> {
    /// Type 1: `unused (4) | quote`.
    DestinationUnreachable {
        /// The code: why.
        code: u8,
        /// The quoted packet.
        quote: &'a [u8],
    },
    /// Type 2: `reserved (2) | MTU (2) | quote`.
    PacketTooBig {
        /// Largest size of a whole SCION packet on the next link.
        mtu: u16,
        /// The quoted packet.
        quote: &'a [u8],
    },
    /// Type 4: `reserved (2) | pointer (2) | quote`. Code 52 is an expired path.
    ParameterProblem {
        /// The code: what is wrong.
        code: u8,
        /// Offset of the wrong field in the packet.
        pointer: u16,
        /// The quoted packet.
        quote: &'a [u8],
    },
    /// Type 5: `ISD-AS (8) | interface (8) | quote`.
    ExternalInterfaceDown {
        /// The AS that reports the error.
        ia: IsdAs,
        /// Interface of the link that is down.
        interface: u64,
        /// The quoted packet.
        quote: &'a [u8],
    },
    /// Type 6: `ISD-AS (8) | ingress (8) | egress (8) | quote`.
    InternalConnectivityDown {
        /// The AS that reports the error.
        ia: IsdAs,
        /// Interface through which the packet entered it.
        ingress: u64,
        /// Interface through which it cannot leave.
        egress: u64,
        /// The quoted packet.
        quote: &'a [u8],
    },
    /// Type 128.
    EchoRequest(Echo<'a>),
    /// Type 129.
    EchoReply(Echo<'a>),
    /// Traceroute, and unknown types.
    Other {
        /// The type; below 128 it is an error.
        kind: u8,
        /// The code.
        code: u8,
    },
}

/// An echo request or reply: `identifier (2) | sequence number (2) | data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Chosen by the sender of the request.
    pub identifier: u16,
    /// Counted by the sender of the request.
    pub sequence: u16,
    /// Returned unchanged.
    pub data: &'a [u8],
}

impl<'a> Scmp<'a> {
    /// The packet that an error quotes.
    pub const fn quote(&self) -> Option<&'a [u8]> {
        match *self {
            Self::DestinationUnreachable { quote, .. }
            | Self::PacketTooBig { quote, .. }
            | Self::ParameterProblem { quote, .. }
            | Self::ExternalInterfaceDown { quote, .. }
            | Self::InternalConnectivityDown { quote, .. } => Some(quote),
            Self::EchoRequest(_) | Self::EchoReply(_) | Self::Other { .. } => None,
        }
    }
}

pub(super) fn read(upper: &[u8]) -> Result<Scmp<'_>, PacketError> {
    let (&[kind, code, _, _], body) = upper.split_first_chunk().ok_or(PacketError::Truncated)?;
    let short = || body.split_first_chunk().ok_or(PacketError::Truncated);
    Ok(match kind {
        DESTINATION_UNREACHABLE => Scmp::DestinationUnreachable {
            code,
            quote: short()?.1,
        },
        PACKET_TOO_BIG => {
            let (&[_, _, high, low], quote) = short()?;
            let mtu = u16::from_be_bytes([high, low]);
            Scmp::PacketTooBig { mtu, quote }
        }
        PARAMETER_PROBLEM => {
            let (&[_, _, high, low], quote) = short()?;
            Scmp::ParameterProblem {
                code,
                pointer: u16::from_be_bytes([high, low]),
                quote,
            }
        }
        EXTERNAL_INTERFACE_DOWN => {
            let (ia, rest) = number(body)?;
            let (interface, quote) = number(rest)?;
            Scmp::ExternalInterfaceDown {
                ia: IsdAs::from_u64(ia),
                interface,
                quote,
            }
        }
        INTERNAL_CONNECTIVITY_DOWN => {
            let (ia, rest) = number(body)?;
            let (ingress, rest) = number(rest)?;
            let (egress, quote) = number(rest)?;
            Scmp::InternalConnectivityDown {
                ia: IsdAs::from_u64(ia),
                ingress,
                egress,
                quote,
            }
        }
        ECHO_REQUEST | ECHO_REPLY => {
            let (&[i0, i1, s0, s1], data) = short()?;
            let echo = Echo {
                identifier: u16::from_be_bytes([i0, i1]),
                sequence: u16::from_be_bytes([s0, s1]),
                data,
            };
            if kind == ECHO_REQUEST {
                Scmp::EchoRequest(echo)
            } else {
                Scmp::EchoReply(echo)
            }
        }
        _ => Scmp::Other { kind, code },
    })
}

fn number(bytes: &[u8]) -> Result<(u64, &[u8]), PacketError> {
    let (number, rest) = bytes.split_first_chunk().ok_or(PacketError::Truncated)?;
    Ok((u64::from_be_bytes(*number), rest))
}

/// The packet that an SCMP error quotes: the whole header, and a truncated payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted<'a> {
    /// Its sender. Compare it with the own address.
    pub source: Host,
    /// Its destination.
    pub destination: Host,
    /// Its path at the point of the error. Compare it with [`Path::is_same_way`].
    pub path: Path<'a>,
    /// Source and destination port, if it carried UDP and the quote includes them.
    pub ports: Option<(u16, u16)>,
    /// The datagram that it carried, as far as the quote includes it. An SCMP message has at most
    /// 1232 bytes.
    pub payload: &'a [u8],
    /// Whether this is the whole datagram.
    pub whole: bool,
}

impl<'a> Quoted<'a> {
    /// Parses the header of a quoted packet.
    pub fn parse(quote: &'a [u8]) -> Result<Self, PacketError> {
        let (header, payload) = header::read(quote)?;
        let complete = payload.len() == usize::from(header.payload_len);
        let (mut ports, mut datagram, mut whole) = (None, &[][..], false);
        if let Ok((UDP, upper)) = skip_extensions(header.next_header, payload) {
            ports = upper.first_chunk().map(|&[s0, s1, d0, d1]| {
                (u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1]))
            });
            match udp::read(upper) {
                Ok(udp) if complete => (datagram, whole) = (udp.payload, true),
                _ => datagram = upper.get(udp::HEADER..).unwrap_or_default(),
            }
        }
        Ok(Self {
            source: header.source,
            destination: header.destination,
            path: header.path,
            ports,
            payload: datagram,
            whole,
        })
    }
}

/// Appends an echo request.
pub fn write_echo_request(
    source: Host,
    destination: Host,
    path: Path<'_>,
    echo: &Echo<'_>,
    out: &mut Vec<u8>,
) -> Result<(), BuildError> {
    let write = |room: &mut [u8]| room.copy_from_slice(path.as_bytes());
    let path = (path.as_bytes().len(), write);
    write_echo(ECHO_REQUEST, source, destination, path, echo, out)
}

/// Appends the reply to the echo request in `packet`.
pub fn write_echo_reply(
    packet: &Packet<'_>,
    request: &Echo<'_>,
    out: &mut Vec<u8>,
) -> Result<(), BuildError> {
    let (source, destination) = (packet.destination, packet.source);
    let path = packet.path;
    let reverse = |room: &mut [u8]| path.reverse_to(room);
    let path = (path.as_bytes().len(), reverse);
    write_echo(ECHO_REPLY, source, destination, path, request, out)
}

/// A path, given as its length and a function that writes it.
fn write_echo(
    kind: u8,
    source: Host,
    destination: Host,
    (path_len, path): (usize, impl FnOnce(&mut [u8])),
    echo: &Echo<'_>,
    out: &mut Vec<u8>,
) -> Result<(), BuildError> {
    let length = u16::try_from(echo.data.len() + 8).map_err(|_| BuildError::PayloadTooLong)?;
    let start = out.len();
    let upper = start + header::length(source, destination, path_len)?;
    out.resize(upper, 0);
    let path_at = header::write(&mut out[start..], source, destination, SCMP, 1, path);
    out.extend_from_slice(&[kind, 0, 0, 0]);
    out.extend_from_slice(&echo.identifier.to_be_bytes());
    out.extend_from_slice(&echo.sequence.to_be_bytes());
    out.extend_from_slice(echo.data);
    let addresses = header::addresses(&out[start..], path_at);
    let sum = udp::pseudo_sum(addresses, SCMP) + u64::from(length) + udp::sum(&out[upper..]);
    out[upper + 2..upper + 4].copy_from_slice(&(!udp::fold(sum)).to_be_bytes());
    out[start + header::PAYLOAD_LEN..][..2].copy_from_slice(&length.to_be_bytes());
    Ok(())
}
