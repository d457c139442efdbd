//! Hosts of the tracker's own AS that reach other hosts only on UDP port 30041, as pan of scion-apps and `scion
//! ping` do.

use scion_tracker_core::address::ScionAddr;
use scion_tracker_core::codec::bep15::{
    Reply, TransactionId, parse_reply, write_announce_request, write_connect_request,
};
use scion_tracker_core::codec::compact::Layout;
use scion_tracker_core::codec::scion::{Message, Path, Scmp, Template, parse};
use sciparse::address::addr::ScionAddr as TheirAddr;
use sciparse::core::encode::WireEncode as _;
use sciparse::dataplane_path::model::DpPath;
use sciparse::identifier::isd_asn::IsdAsn;
use sciparse::packet::model::ScionScmpPacket;
use sciparse::payload::scmp::model::{ScmpEchoRequest, ScmpMessage};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::common::{PATIENCE, Tracker, announce, ia, own_address};

const AS: &str = "1-ff00:0:111";
/// Where pan and `scion ping` send to, whatever the port of the destination.
const ENDHOST_PORT: u16 = 30_041;

/// A host with one socket.
struct Host {
    socket: UdpSocket,
    address: ScionAddr,
    tracker: ScionAddr,
}

impl Host {
    async fn new(tracker: &Tracker, test: u8, port: u16) -> Self {
        let socket = UdpSocket::bind((own_address(test), port)).await.unwrap();
        let own = socket.local_addr().unwrap();
        Self {
            address: ScionAddr::new(ia(AS), own.ip(), own.port()).unwrap(),
            socket,
            tracker: tracker.scion,
        }
    }

    async fn send(&self, packet: &[u8]) {
        let to = (self.tracker.host.ip(), ENDHOST_PORT);
        self.socket.send_to(packet, to).await.unwrap();
    }

    /// The next packet, which comes from the port of the tracker.
    async fn receive(&self) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let received = timeout(PATIENCE, self.socket.recv_from(&mut buffer)).await;
        let (length, from) = received.unwrap().unwrap();
        let expected = (self.tracker.host.ip(), self.tracker.port);
        assert_eq!((from.ip(), from.port()), expected);
        buffer[..length].to_vec()
    }

    /// Sends a datagram to the tracker's SCION port and returns the reply.
    async fn ask(&self, datagram: &[u8]) -> Vec<u8> {
        let way = Path::parse(&[]).unwrap();
        let template = Template::new(self.address, self.tracker, way).unwrap();
        let mut packet = Vec::new();
        template.write(datagram, &mut packet).unwrap();
        self.send(&packet).await;
        let reply = self.receive().await;
        let reply = parse(&reply).unwrap();
        assert_eq!(reply.source, self.tracker.host);
        match reply.message {
            Message::Udp(udp) => {
                let ports = (udp.source_port, udp.destination_port);
                assert_eq!(ports, (self.tracker.port, self.address.port));
                udp.payload.to_vec()
            }
            Message::Scmp(_) => panic!("not UDP"),
        }
    }
}

/// Without the socket on port 30041 nothing answers.
#[tokio::test(flavor = "multi_thread")]
async fn announces_through_the_endhost_port_are_answered() {
    let address = format!("{AS},[{}]:0", own_address(12));
    let tracker = Tracker::start_with(&address, |config| config.scion.endhost_port = Some(true));
    let host = Host::new(&tracker, 13, 0).await;
    let mut request = Vec::new();
    write_connect_request(TransactionId(1), &mut request);
    let reply = host.ask(&request).await;
    let Reply::Connect { connection, .. } = parse_reply(&reply, Layout::Scion4).unwrap() else {
        panic!("{reply:?}");
    };
    for (port, known) in [(7001, 0), (7002, 1)] {
        request.clear();
        let query = announce(1, port);
        write_announce_request(
            connection,
            TransactionId(2),
            &query.announce,
            "/announce",
            &mut request,
        );
        let reply = host.ask(&request).await;
        match parse_reply(&reply, Layout::Scion4).unwrap() {
            Reply::Announce { peers, .. } => assert_eq!(peers.count(), known),
            other => panic!("{other:?}"),
        }
    }
    tracker.stop().await;
}

/// `scion ping` sends from port 30041 as well, unless there is a dispatcher.
#[tokio::test(flavor = "multi_thread")]
async fn echo_requests_are_answered() {
    let address = format!("{AS},[{}]:0", own_address(14));
    let tracker = Tracker::start_with(&address, |config| config.scion.endhost_port = Some(true));
    let host = Host::new(&tracker, 15, ENDHOST_PORT).await;
    let theirs = |it: ScionAddr| TheirAddr::new(IsdAsn(it.host.ia.to_u64()), it.host.ip().into());
    let echo = ScmpEchoRequest::new(ENDHOST_PORT, 7, b"ping".to_vec());
    let (from, to) = (theirs(host.address), theirs(host.tracker));
    let request = ScionScmpPacket::new(from, to, DpPath::Empty, ScmpMessage::from(echo));
    host.send(&request.try_encode_to_vec().unwrap()).await;
    let reply = host.receive().await;
    let reply = parse(&reply).unwrap();
    assert_eq!(reply.source, host.tracker.host);
    assert!(reply.checksum_is_right());
    match reply.message {
        Message::Scmp(Scmp::EchoReply(echo)) => {
            let expected = (ENDHOST_PORT, 7, &b"ping"[..]);
            assert_eq!((echo.identifier, echo.sequence, echo.data), expected);
        }
        other => panic!("{other:?}"),
    }
    tracker.stop().await;
}
