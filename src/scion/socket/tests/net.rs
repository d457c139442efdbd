//! A SCION network in one process: hosts on loopback, paths that are only well-formed, and a relay
//! that acts as all border routers.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use ::quinn::rustls::RootCertStore;
use ::quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use ::quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig};
use parking_lot::Mutex;
use scion_tracker_core::address::{Host, IsdAs, ScionAddr};
use scion_tracker_core::codec::scion::{Message, Path, Template, parse};
use tokio::time::timeout;

use crate::scion::socket::ScionSocket;

pub(super) const LOOPBACK: &str = "127.0.0.1:0";
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn host(text: &str) -> Host {
    let addr: ScionAddr = format!("{text}:1").parse().unwrap();
    addr.host
}

pub(crate) fn loopback() -> SocketAddr {
    LOOPBACK.parse().unwrap()
}

/// A path of one link from interface `number` to interface `number + 1`, issued now.
pub(crate) fn path(number: u8) -> Vec<u8> {
    let issued = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() as u32;
    let mut path = vec![0, 0, 0x20, 0, 1, 0, 0, 1];
    path.extend_from_slice(&issued.to_be_bytes());
    path.extend_from_slice(&[0, 63, 0, 0, 0, number, 1, 2, 3, 4, 5, 6]);
    path.extend_from_slice(&[0, 63, 0, number + 1, 0, 0, 6, 5, 4, 3, 2, number]);
    path
}

/// The certificate of the server, and the trust of its clients.
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    pub(super) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["tracker".to_owned()]).unwrap();
        let key = made.signing_key.serialize_der();
        Self {
            certificate: made.cert.der().clone(),
            key,
        }
    }

    pub(super) fn server(&self) -> ServerConfig {
        let key = PrivateKeyDer::try_from(self.key.clone()).unwrap();
        let mut config =
            ServerConfig::with_single_cert(vec![self.certificate.clone()], key).unwrap();
        config.migration(false);
        config
    }

    pub(super) fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut config = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
        let mut transport = TransportConfig::default();
        // Tests repair losses quickly.
        transport.initial_rtt(Duration::from_millis(20));
        config.transport_config(Arc::new(transport));
        config
    }
}

/// How a server handles connections from addresses that are not validated.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Validation {
    Handshake,
    Retry,
}

/// Serves until the endpoint is dropped. Answers each request with the origin of its connection and
/// the request itself.
pub(super) fn serve(socket: &Arc<ScionSocket>, config: ServerConfig, validation: Validation) {
    let endpoint = socket.endpoint(Some(config)).unwrap();
    let socket = Arc::clone(socket);
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            if validation == Validation::Retry && !incoming.remote_address_validated() {
                incoming.retry().unwrap();
                continue;
            }
            let origin = socket.endpoint_of(incoming.remote_address()).unwrap();
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else {
                    return;
                };
                while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                    let request = receive.read_to_end(100_000).await.unwrap();
                    send.write_all(format!("{origin} ").as_bytes())
                        .await
                        .unwrap();
                    send.write_all(&request).await.unwrap();
                    send.finish().unwrap();
                }
            });
        }
    });
}

/// Makes one request and returns the answer as text.
pub(super) async fn ask(connection: &Connection, request: &str) -> String {
    let exchange = async {
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(request.as_bytes()).await.unwrap();
        send.finish().unwrap();
        receive.read_to_end(200_000).await.unwrap()
    };
    let reply = timeout(PATIENCE, exchange).await.expect("a reply in time");
    String::from_utf8(reply).unwrap()
}

pub(super) async fn connect(
    endpoint: &Endpoint,
    identity: &Identity,
    to: SocketAddr,
) -> Connection {
    let connecting = endpoint
        .connect_with(identity.client(), to, "tracker")
        .unwrap();
    timeout(PATIENCE, connecting)
        .await
        .expect("a handshake in time")
        .unwrap()
}

/// Acts as all border routers. Forwards each packet to its destination. For a link that is down it
/// sends an SCMP error to the sender, or drops the packet if the link is a black hole.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    links: Arc<Mutex<Links>>,
}

#[derive(Debug, Default)]
struct Links {
    /// Interfaces with links that are down.
    down: Vec<u16>,
    /// An interface with a link that is down for packets from this AS.
    one_way: Option<(IsdAs, u16)>,
    /// Interfaces with links that drop packets.
    holes: Vec<u16>,
    /// An interface with a link that goes down after this many more packets.
    fuse: Option<(u16, usize)>,
}

impl Relay {
    /// Starts a relay between these two endpoints. It ends with the test process.
    pub(super) fn new(one: &ScionSocket, two: &ScionSocket) -> Self {
        Self::to([one, two].map(|it| (it.local().host, it.underlay_addr())))
    }

    /// Starts a relay to these hosts, and back to the hosts that have sent something.
    pub(crate) fn to(hosts: impl IntoIterator<Item = (Host, SocketAddr)>) -> Self {
        let socket = UdpSocket::bind(LOOPBACK).unwrap();
        let addr = socket.local_addr().unwrap();
        let links = Arc::<Mutex<Links>>::default();
        let shared = Arc::clone(&links);
        let hosts: HashMap<_, _> = hosts.into_iter().collect();
        // Programs of one host differ by their ports.
        let mut programs = HashMap::new();
        thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let bytes = &buffer[..length];
                let packet = parse(bytes).unwrap();
                let Message::Udp(udp) = packet.message else {
                    panic!("only UDP is relayed");
                };
                programs.insert((packet.source, udp.source_port), from);
                let fate = shared.lock().pass(packet.source.ia, packet.path);
                let reply = match fate {
                    Fate::Arrives => {
                        let program = (packet.destination, udp.destination_port);
                        let to = programs.get(&program);
                        let to = to.unwrap_or_else(|| &hosts[&packet.destination]);
                        socket.send_to(bytes, to).unwrap();
                        continue;
                    }
                    Fate::Lost => continue,
                    Fate::Refused(interface) => interface_down(bytes, interface),
                };
                socket.send_to(&reply, from).unwrap();
            }
        });
        Self { addr, links }
    }

    /// Takes the link of this interface down, and all others up.
    pub(crate) fn take_down(&self, interface: u16) {
        self.links.lock().down = vec![interface];
    }

    /// Takes the links of these interfaces down, and all others up.
    pub(crate) fn take_all_down(&self, interfaces: &[u16]) {
        self.links.lock().down = interfaces.to_vec();
    }

    /// Takes the link of this interface down after this many more packets.
    pub(crate) fn take_down_after(&self, interface: u16, packets: usize) {
        self.links.lock().fuse = Some((interface, packets));
    }

    /// Takes the link of this interface down for packets from this AS.
    pub(crate) fn take_down_from(&self, ia: IsdAs, interface: u16) {
        self.links.lock().one_way = Some((ia, interface));
    }

    /// Whether the link of this interface is down.
    pub(crate) fn is_down(&self, interface: u16) -> bool {
        self.links.lock().down.contains(&interface)
    }

    /// Makes the link of this interface drop all packets.
    pub(crate) fn make_hole(&self, interface: u16) {
        self.links.lock().holes = vec![interface];
    }
}

enum Fate {
    Arrives,
    Lost,
    /// This interface is down.
    Refused(u16),
}

impl Links {
    fn pass(&mut self, from: IsdAs, path: Path<'_>) -> Fate {
        match &mut self.fuse {
            Some((interface, 0)) => {
                self.down.push(*interface);
                self.fuse = None;
            }
            Some((_, left)) => *left -= 1,
            None => {}
        }
        let find = |list: &[u16]| path.interfaces().find(|it| list.contains(it));
        let one_way = self.one_way.filter(|(ia, _)| *ia == from);
        if let Some(interface) = one_way.and_then(|(_, interface)| find(&[interface])) {
            Fate::Refused(interface)
        } else if let Some(interface) = find(&self.down) {
            Fate::Refused(interface)
        } else if find(&self.holes).is_some() {
            Fate::Lost
        } else {
            Fate::Arrives
        }
    }
}

/// Makes the SCMP error for a UDP packet. It is written as UDP, and then the next header and the 8
/// bytes of the UDP header are changed.
fn interface_down(packet: &[u8], interface: u16) -> Vec<u8> {
    let about = parse(packet).unwrap();
    let Message::Udp(udp) = about.message else {
        panic!("an error about an error")
    };
    let to = ScionAddr {
        host: about.source,
        port: udp.source_port,
    };
    let router = ScionAddr {
        host: Host::new(to.host.ia, [10, 255, 0, 1].into()),
        port: 1,
    };
    let place = router.host.ia.to_u64().to_be_bytes();
    let mut body = place[4..].to_vec();
    body.extend_from_slice(&u64::from(interface).to_be_bytes());
    body.extend_from_slice(&packet[..packet.len().min(1000)]);
    let mut error = Vec::new();
    let template = Template::new(router, to, Path::EMPTY).unwrap();
    template.write(&body, &mut error).unwrap();
    error[4] = 202;
    let header = template.overhead() - 8;
    error[header..header + 4].copy_from_slice(&[5, 0, 0, 0]);
    error[header + 4..header + 8].copy_from_slice(&place[..4]);
    error
}
