//! Building packets: a header template per path, so that a packet costs two copies, a sum and three
//! patched fields.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::{Packet, Path, UDP, Udp, header, udp};
use crate::address::ScionAddr;

/// Why a packet cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// HdrLen ends at 1020 bytes.
    #[error("path too long for a SCION header")]
    HeaderTooLong,
    /// PayloadLen ends at 65535 bytes.
    #[error("payload too long for a SCION packet")]
    PayloadTooLong,
    /// A sender without an address that can be answered: port 0.
    #[error("sender has no port to answer to")]
    NoPort,
    /// A buffer shorter than the header.
    #[error("no room for the SCION header")]
    NoRoom,
}

/// A SCION and UDP header for one source, destination and path, ready but for lengths and checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Header and UDP header, PayloadLen, length and checksum zero.
    bytes: Box<[u8]>,
    /// The checksum over the pseudo header and the ports: all but the lengths and the payload.
    sum: u64,
    path_at: usize,
}

impl Template {
    /// For packets from `source` to `destination` along `path`.
    pub fn new(
        source: ScionAddr,
        destination: ScionAddr,
        path: Path<'_>,
    ) -> Result<Self, BuildError> {
        let mut bytes = Vec::with_capacity(128);
        header::write(
            source.host,
            destination.host,
            path,
            UDP,
            flow_id(source, destination),
            &mut bytes,
        )?;
        let path_at = bytes.len() - path.as_bytes().len();
        let addresses = header::addresses(&bytes, source.host, destination.host);
        let sum =
            udp::pseudo_sum(addresses, UDP) + u64::from(source.port) + u64::from(destination.port);
        bytes.extend_from_slice(&source.port.to_be_bytes());
        bytes.extend_from_slice(&destination.port.to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        Ok(Self {
            bytes: bytes.into(),
            sum,
            path_at,
        })
    }

    /// For the answers to a packet: addresses exchanged, path reversed.
    pub fn answering(packet: &Packet<'_>, datagram: &Udp<'_>) -> Result<Self, BuildError> {
        if datagram.source_port == 0 || datagram.destination_port == 0 {
            return Err(BuildError::NoPort);
        }
        let mut reversed = Vec::with_capacity(packet.path.as_bytes().len());
        packet.path.reverse_into(&mut reversed);
        Self::new(
            ScionAddr {
                host: packet.destination,
                port: datagram.destination_port,
            },
            ScionAddr {
                host: packet.source,
                port: datagram.source_port,
            },
            Path::trusted(&reversed),
        )
    }

    /// How much longer a packet is than its payload.
    pub const fn overhead(&self) -> usize {
        self.bytes.len()
    }

    /// The path that its packets take.
    pub fn path(&self) -> Path<'_> {
        Path::trusted(&self.bytes[self.path_at..self.bytes.len() - udp::HEADER])
    }

    /// Appends one packet.
    pub fn write(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), BuildError> {
        let length = length(payload)?;
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        out.extend_from_slice(payload);
        // Summed where it comes from: what has just been written is slow to read.
        self.patch(&mut out[start..], length, udp::sum(payload));
        Ok(())
    }

    /// Completes a packet in place, whose payload stands behind [`Template::overhead`] bytes of room
    /// for the header.
    pub fn seal(&self, packet: &mut [u8]) -> Result<(), BuildError> {
        let (room, payload) = packet
            .split_at_mut_checked(self.overhead())
            .ok_or(BuildError::NoRoom)?;
        let (length, sum) = (length(payload)?, udp::sum(payload));
        room.copy_from_slice(&self.bytes);
        self.patch(room, length, sum);
        Ok(())
    }

    /// Fills in lengths and checksum of a header.
    fn patch(&self, header: &mut [u8], length: u16, payload_sum: u64) {
        // The length stands in the pseudo header and in the UDP header.
        let sum = self.sum + 2 * u64::from(length) + payload_sum;
        let length = length.to_be_bytes();
        header[header::PAYLOAD_LEN..][..2].copy_from_slice(&length);
        let tail = &mut header[self.bytes.len() - 4..][..4];
        tail[..2].copy_from_slice(&length);
        tail[2..].copy_from_slice(&udp::udp_checksum(sum));
    }

    /// Appends one packet for each `segment` bytes of `payloads`, back to back: what a transmit with
    /// segmentation offload hands over. Returns the length of a packet (the last may be shorter),
    /// which is the segment size to give to the system with the buffer.
    pub fn write_segments(
        &self,
        payloads: &[u8],
        segment: usize,
        out: &mut Vec<u8>,
    ) -> Result<usize, BuildError> {
        let segment = segment.max(1);
        out.reserve(payloads.len() + payloads.len().div_ceil(segment) * self.overhead());
        for payload in payloads.chunks(segment) {
            self.write(payload, out)?;
        }
        Ok(segment + self.overhead())
    }
}

/// What stands in PayloadLen and in the UDP header.
fn length(payload: &[u8]) -> Result<u16, BuildError> {
    u16::try_from(payload.len() + udp::HEADER).map_err(|_| BuildError::PayloadTooLong)
}

/// One flow per pair of endpoints, never zero (the FlowID must be set).
fn flow_id(source: ScionAddr, destination: ScionAddr) -> u32 {
    use std::hash::Hash;
    let mut hasher = SipHasher13::new();
    (source, destination).hash(&mut hasher);
    hasher.finish() as u32 & 0xf_ffff | 1
}
