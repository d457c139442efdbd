//! Tests which clients an address validation token is valid for.

use ::quinn::{ConnectionError, TransportErrorCode};

use super::*;

/// Starts a relay between a client and its server. After the Retry it forwards the client's packets
/// with `later` as their source. Returns its address. It ends with the test process.
fn between(client: ScionAddr, later: ScionAddr, server: &ScionSocket) -> SocketAddr {
    let relay = UdpSocket::bind(loopback()).unwrap();
    let addr = relay.local_addr().unwrap();
    let (server, server_at) = (server.local(), server.underlay_addr());
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        let (mut source, mut client_at) = (client, None);
        while let Ok((length, from)) = relay.recv_from(&mut buffer) {
            let packet = parse(&buffer[..length]).unwrap();
            let Message::Udp(udp) = packet.message else {
                panic!("not UDP: {packet:?}");
            };
            let way = path(1);
            if from == server_at {
                assert_eq!(packet.destination, source.host);
                // RFC 9000, section 17.2.5.
                if udp.payload[0] & 0xf0 == 0xf0 {
                    source = later;
                }
                let on = forge(server, client, &way, udp.payload);
                relay.send_to(&on, client_at.unwrap()).unwrap();
            } else {
                client_at = Some(from);
                let on = forge(source, server, &way, udp.payload);
                relay.send_to(&on, server_at).unwrap();
            }
        }
    });
    addr
}

/// A client of this host gets a token with a Retry, and a client of host `later` with the same port
/// returns it.
async fn check_token(client: &str, later: &str) -> Result<(), ConnectionError> {
    let identity = Identity::new();
    let server = ScionSocket::bind(host(SERVER), loopback()).unwrap();
    serve(&server, identity.server(), Validation::Retry);
    let client = ScionSocket::bind(host(client), loopback()).unwrap();
    let endpoint = client.endpoint(None).unwrap();
    let later = ScionAddr {
        host: host(later),
        port: client.local().port,
    };
    let relay = between(client.local(), later, &server);
    let to = client
        .set_paths(server.local(), (&path(1), relay), None)
        .unwrap();
    let connecting = endpoint.connect_with(identity.client(), to, "tracker");
    let done = timeout(Duration::from_secs(10), connecting.unwrap());
    done.await.unwrap().map(|_| ())
}

#[tokio::test]
async fn a_token_is_good_for_the_host_that_it_was_given_to_and_not_for_its_ip_in_another_as() {
    for (one, other) in [
        (CLIENT, "2-ff00:0:211,[10.0.0.2]"),
        (CLIENT, "3-ff00:0:210,[10.0.0.2]"),
        ("2-ff00:0:210,[fd00::2]", "2-ff00:0:211,[fd00::2]"),
    ] {
        let own = check_token(one, one).await;
        assert!(own.is_ok(), "{one}: {own:?}");
        let foreign = check_token(one, other).await;
        let Err(ConnectionError::ConnectionClosed(close)) = &foreign else {
            panic!("{one}, {other}: {foreign:?}");
        };
        assert_eq!(close.error_code, TransportErrorCode::INVALID_TOKEN);
    }
}
