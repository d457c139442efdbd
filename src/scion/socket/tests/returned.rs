//! Packets that routers return, on connections that are open.

use super::*;
use crate::counters::Counter;

/// Packets of the server do not pass the path of a client, whose own packets do. The server sends them
/// over the path of another client of the AS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_takes_the_path_of_another_client_of_the_as() {
    let identity = Identity::new();
    let networks = Routers::Networks(vec!["127.0.0.0/8".parse().unwrap()]);
    for routers in [networks, Routers::Unknown] {
        let underlay = UdpSocket::bind(loopback()).unwrap();
        let (limits, counters) = (Limits::default(), Arc::default());
        let server =
            ScionSocket::server((underlay, None), host(SERVER), routers, limits, counters).unwrap();
        serve(&server, identity.server(), Validation::Handshake);
        let one = ScionSocket::bind(host(CLIENT), loopback()).unwrap();
        let other = ScionSocket::bind(host(CLIENT), loopback()).unwrap();
        let relay = Relay::new(&server, &one);
        let mut open = Vec::new();
        for (socket, way) in [(&one, path(1)), (&other, path(3))] {
            let to = socket
                .set_paths(server.local(), (&way, relay.addr), None)
                .unwrap();
            let endpoint = socket.endpoint(None).unwrap();
            let connection = connect(&endpoint, &identity, to).await;
            ask(&connection, "before").await;
            open.push((endpoint, connection));
        }
        let count = |counter| server.counters().snapshot().get(counter);
        assert_eq!(count(Counter::ScionResent), 0);
        relay.take_down_from(server.local().host.ia, 1);
        for request in ["one", "two", "three"] {
            let reply = ask(&open[0].1, request).await;
            assert!(reply.ends_with(request), "{reply}");
        }
        assert!(count(Counter::ScionResent) > 0);
    }
}

/// The part of the server in a handshake does not pass the path of a new client. Its packets are too long for
/// a router to return in full. They take the path of another client of the AS, or wait for a packet over one.
/// QUIC itself would send them over the same path again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_of_a_server_takes_the_path_of_another_client() {
    let identity = Identity::new();
    for routers in [
        Routers::Networks(vec!["127.0.0.0/8".parse().unwrap()]),
        Routers::Unknown,
    ] {
        for early in [true, false] {
            let underlay = UdpSocket::bind(loopback()).unwrap();
            let (limits, counters) = (Limits::default(), Arc::default());
            let (server, routers) = (host(SERVER), routers.clone());
            let server =
                ScionSocket::server((underlay, None), server, routers, limits, counters).unwrap();
            serve(&server, identity.server(), Validation::Handshake);
            let one = ScionSocket::bind(host(CLIENT), loopback()).unwrap();
            let other = ScionSocket::bind(host(CLIENT), loopback()).unwrap();
            let relay = Relay::new(&server, &one);
            relay.take_down_from(server.local().host.ia, 1);
            let count = |counter| server.counters().snapshot().get(counter);
            let connecting = |socket: &Arc<ScionSocket>, number| {
                let way = path(number);
                let to = socket
                    .set_paths(server.local(), (&way, relay.addr), None)
                    .unwrap();
                let endpoint = socket.endpoint(None).unwrap();
                let identity = &identity;
                async move { (connect(&endpoint, identity, to).await, endpoint) }
            };
            let (connection, _endpoint) = if early {
                let _open = connecting(&other, 3).await;
                connecting(&one, 1).await
            } else {
                let second = async {
                    // Until the packets of the first handshake have been returned.
                    while count(Counter::ScionRemotesAdded) == 0 {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                    connecting(&other, 3).await
                };
                tokio::join!(connecting(&one, 1), second).0
            };
            let reply = ask(&connection, "x").await;
            assert!(reply.ends_with('x'), "{reply}");
            assert!(count(Counter::ScionResent) > 0);
        }
    }
}
