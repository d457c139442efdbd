//! Builds packets. A [`Template`] holds the header of a path, so that a packet takes two copies, a
//! sum and three patched fields. An [`Answer`] is written in place, for senders that answer each
//! packet separately.

use super::{Packet, Path, UDP, Udp, header, udp};
use crate::address::ScionAddr;

/// Why a packet cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// HdrLen holds at most 1020 bytes.
    #[error("path too long for a SCION header")]
    HeaderTooLong,
    /// PayloadLen holds at most 65535 bytes.
    #[error("payload too long for a SCION packet")]
    PayloadTooLong,
    /// The sender cannot be answered: port 0.
    #[error("sender has no port to answer to")]
    NoPort,
    /// The buffer is shorter than the packet.
    #[error("no room for the SCION packet")]
    NoRoom,
}

/// A SCION and UDP header for one source, destination and path, complete except for lengths and
/// checksum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The SCION and UDP headers, with PayloadLen, UDP length and checksum zero.
    bytes: Box<[u8]>,
    /// Checksum of the pseudo header and the ports: everything but the lengths and the payload.
    sum: u64,
    path_at: usize,
}

impl Template {
    /// A template for packets from `source` to `destination` along `path`.
    pub fn new(
        source: ScionAddr,
        destination: ScionAddr,
        path: Path<'_>,
    ) -> Result<Self, BuildError> {
        let path = path.as_bytes();
        Self::build(source, destination, path.len(), |room| {
            room.copy_from_slice(path);
        })
    }

    /// A template for replies to a packet: addresses exchanged, path reversed.
    pub fn answering(packet: &Packet<'_>, datagram: &Udp<'_>) -> Result<Self, BuildError> {
        let (source, destination) = exchanged(packet, datagram)?;
        Self::between(source, destination, packet.path)
    }

    /// A template for answers from `source` to `destination`, along the reverse of the path of its
    /// packet.
    pub fn between(
        source: ScionAddr,
        destination: ScionAddr,
        path: Path<'_>,
    ) -> Result<Self, BuildError> {
        Self::build(source, destination, path.as_bytes().len(), |room| {
            path.reverse_to(room);
        })
    }

    fn build(
        source: ScionAddr,
        destination: ScionAddr,
        path_len: usize,
        path: impl FnOnce(&mut [u8]),
    ) -> Result<Self, BuildError> {
        let length = header::length(source.host, destination.host, path_len)?;
        let mut bytes = vec![0; length + udp::HEADER].into_boxed_slice();
        let (sum, path_at) = write_headers(&mut bytes, source, destination, path);
        Ok(Self {
            bytes,
            sum,
            path_at,
        })
    }

    /// Bytes that a packet has besides its payload.
    pub const fn overhead(&self) -> usize {
        self.bytes.len()
    }

    /// The path of its packets.
    pub fn path(&self) -> Path<'_> {
        path(&self.bytes, self.path_at)
    }

    /// Appends one packet.
    pub fn write(&self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), BuildError> {
        let length = length(payload)?;
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        out.extend_from_slice(payload);
        // Sum the original payload: reading bytes that were just written is slow.
        let headers = &mut out[start..][..self.bytes.len()];
        patch(headers, self.sum + udp::sum(payload), length);
        Ok(())
    }

    /// Completes a packet in place. Its payload follows [`Template::overhead`] bytes of space for
    /// the header.
    pub fn seal(&self, packet: &mut [u8]) -> Result<(), BuildError> {
        let (headers, payload) = packet
            .split_at_mut_checked(self.overhead())
            .ok_or(BuildError::NoRoom)?;
        headers.copy_from_slice(&self.bytes);
        patch(headers, self.sum + udp::sum(payload), length(payload)?);
        Ok(())
    }

    /// Appends one packet for each `segment` bytes of `payloads`, back to back, as a transmit with
    /// segmentation offload provides them. Returns the length of a packet (the last may be
    /// shorter): the segment size to pass to the system with the buffer.
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

/// The reply to one packet, built in the buffer that it is sent from, without a [`Template`].
/// Allocates nothing and reads only the payload a second time.
#[derive(Debug)]
pub struct Answer<'b> {
    /// Headers as in a [`Template`], and space for the payload.
    buffer: &'b mut [u8],
    overhead: usize,
    sum: u64,
    path_at: usize,
}

/// An [`Answer`] with its payload that lacks only lengths and checksum. Bytes that were just
/// written are slow to read, so seal several answers after all are written.
#[derive(Debug, Clone, Copy)]
pub struct Unsealed {
    sum: u64,
    overhead: usize,
    /// The value of PayloadLen.
    length: u16,
}

impl<'b> Answer<'b> {
    /// Starts the reply to a packet: addresses exchanged, path reversed.
    pub fn new(
        packet: &Packet<'_>,
        datagram: &Udp<'_>,
        buffer: &'b mut [u8],
    ) -> Result<Self, BuildError> {
        let (source, destination) = exchanged(packet, datagram)?;
        Self::between(source, destination, packet.path, buffer)
    }

    /// Starts the reply from `source` to `destination`, along the reverse of the path of its
    /// packet.
    #[inline]
    pub fn between(
        source: ScionAddr,
        destination: ScionAddr,
        path: Path<'_>,
        buffer: &'b mut [u8],
    ) -> Result<Self, BuildError> {
        let length = header::length(source.host, destination.host, path.as_bytes().len())?;
        let overhead = length + udp::HEADER;
        let headers = buffer.get_mut(..overhead).ok_or(BuildError::NoRoom)?;
        let (sum, path_at) = write_headers(headers, source, destination, |room| {
            path.reverse_to(room);
        });
        Ok(Self {
            buffer,
            overhead,
            sum,
            path_at,
        })
    }

    /// The space for the payload.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.overhead..]
    }

    /// The path of the reply.
    pub fn path(&self) -> Path<'_> {
        path(&self.buffer[..self.overhead], self.path_at)
    }

    /// Ends the payload after `payload` bytes.
    #[inline]
    pub fn written(&self, payload: usize) -> Result<Unsealed, BuildError> {
        let payload = self.buffer[self.overhead..]
            .get(..payload)
            .ok_or(BuildError::NoRoom)?;
        Ok(Unsealed {
            sum: self.sum,
            overhead: self.overhead,
            length: length(payload)?,
        })
    }

    /// Completes the packet with a payload of this length. Returns the length of the packet.
    pub fn seal(self, payload: usize) -> Result<usize, BuildError> {
        let unsealed = self.written(payload)?;
        unsealed.seal(&mut self.buffer[..unsealed.packet_len()]);
        Ok(unsealed.packet_len())
    }
}

impl Unsealed {
    /// Length of the packet.
    pub const fn packet_len(&self) -> usize {
        self.overhead - udp::HEADER + self.length as usize
    }

    /// Completes the packet at the start of the buffer that it was written to.
    ///
    /// # Panics
    /// If `packet` is not [`Unsealed::packet_len`] bytes long.
    pub fn seal(&self, packet: &mut [u8]) {
        assert_eq!(packet.len(), self.packet_len(), "another packet");
        let (headers, payload) = packet.split_at_mut(self.overhead);
        patch(headers, self.sum + udp::sum(payload), self.length);
    }
}

/// Source and destination of the reply to a packet.
const fn exchanged(
    packet: &Packet<'_>,
    datagram: &Udp<'_>,
) -> Result<(ScionAddr, ScionAddr), BuildError> {
    if datagram.source_port == 0 || datagram.destination_port == 0 {
        return Err(BuildError::NoPort);
    }
    let source = ScionAddr {
        host: packet.destination,
        port: datagram.destination_port,
    };
    let destination = ScionAddr {
        host: packet.source,
        port: datagram.source_port,
    };
    Ok((source, destination))
}

/// Writes the SCION and UDP headers into a buffer of exactly their length, with lengths and
/// checksum zero. Returns the checksum of the known part, and the offset of the path.
fn write_headers(
    headers: &mut [u8],
    source: ScionAddr,
    destination: ScionAddr,
    path: impl FnOnce(&mut [u8]),
) -> (u64, usize) {
    let length = headers.len() - udp::HEADER;
    let (header, udp_header) = headers.split_at_mut(length);
    let path_at = header::write(header, source.host, destination.host, UDP, 0, path);
    let sum = udp::pseudo_sum(header::addresses(header, path_at), UDP)
        + u64::from(source.port)
        + u64::from(destination.port);
    header[..4].copy_from_slice(&flow_id(sum).to_be_bytes());
    udp_header[..2].copy_from_slice(&source.port.to_be_bytes());
    udp_header[2..4].copy_from_slice(&destination.port.to_be_bytes());
    udp_header[4..].fill(0);
    (sum, path_at)
}

/// Fills in lengths and checksum. `sum` covers everything else.
fn patch(headers: &mut [u8], sum: u64, length: u16) {
    // The length is in the pseudo header and in the UDP header.
    let sum = sum + 2 * u64::from(length);
    let length = length.to_be_bytes();
    headers[header::PAYLOAD_LEN..][..2].copy_from_slice(&length);
    if let Some([.., l0, l1, c0, c1]) = headers.last_chunk_mut::<{ udp::HEADER }>() {
        [*l0, *l1] = length;
        [*c0, *c1] = udp::udp_checksum(sum);
    }
}

/// The path in the SCION and UDP headers.
fn path(headers: &[u8], path_at: usize) -> Path<'_> {
    Path::trusted(&headers[path_at..headers.len() - udp::HEADER])
}

/// The value of PayloadLen and of the UDP length.
fn length(payload: &[u8]) -> Result<u16, BuildError> {
    u16::try_from(payload.len() + udp::HEADER).map_err(|_| BuildError::PayloadTooLong)
}

/// The FlowID: one per pair of endpoints, never zero (it must be set). Derived from the sum over
/// both, which is already computed. Routers also use the addresses, so flows with the same FlowID
/// are told apart.
const fn flow_id(sum: u64) -> u32 {
    udp::fold(sum) as u32 | 0x1_0000
}
