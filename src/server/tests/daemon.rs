//! What the tracker takes from a SCION daemon at its start.

use super::*;
use crate::scion::daemon::DaemonAddr;
use crate::scion::daemon::fake::FakeDaemon;

/// A configuration with this daemon and these SCION listeners.
fn with_daemon(daemon: &FakeDaemon, scion: &[&str]) -> Config {
    let mut config = config();
    config.listen.scion = scion.iter().map(|it| it.parse().unwrap()).collect();
    config.scion.daemon = Some(daemon.addr.into());
    config
}

fn error_of(config: Config) -> String {
    let error = bind(config).0.map(|_| ()).unwrap_err();
    format!("{:#}", anyhow::Error::new(error))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_daemon_says_who_we_are_and_which_ports_are_open() {
    let daemon = FakeDaemon::start("1-ff00:0:110").await;
    daemon.knows.lock().ports = (31000, 31100);
    daemon.knows.lock().interfaces = vec![(1, "127.0.0.1:30042".into())];
    for (scion, says) in [
        // The default: found, and then refused.
        (&[][..], "1-ff00:0:110,[127.0.0.1]:31969"),
        (&[], "(31000-31100)"),
        (&["1-ff00:0:110,[127.0.0.1]:6969"], "port 6969"),
        (
            &["1-ff00:0:111,[127.0.0.1]:31000"],
            "the SCION daemon is one of 1-ff00:0:110",
        ),
    ] {
        let error = error_of(with_daemon(&daemon, scion));
        assert!(error.contains(says), "{error}");
    }
    daemon.knows.lock().interfaces.clear();
    let error = error_of(with_daemon(&daemon, &[]));
    assert!(error.contains("name the address with --scion"), "{error}");

    // What the topology file says goes before.
    let mut config = with_daemon(&daemon, &[]);
    config.scion.topology = Some("/nonexistent/topology.json".into());
    assert!(error_of(config).contains("/nonexistent/topology.json"));
    let mut config = with_daemon(&daemon, &[]);
    config.scion.daemon = "127.0.0.1:1".parse().ok();
    let error = error_of(config);
    assert!(error.contains("SCION daemon at 127.0.0.1:1"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_of_the_host_binds_what_it_can_and_what_is_asked_for() {
    let daemon = FakeDaemon::start("1-ff00:0:110").await;
    daemon.knows.lock().ports = (31000, 31100);
    daemon.knows.lock().interfaces = vec![(1, "127.0.0.1:30042".into())];
    let of_host = |scion: &[&str]| {
        let mut config = with_daemon(&daemon, scion);
        config.scion.daemon = Some(DaemonAddr::of_host(&daemon.addr.to_string()));
        config
    };
    // The default port is closed, and nobody has asked.
    let server = bind(of_host(&[])).0.unwrap();
    assert!(server.listeners().all(|it| it.scion.is_none()));
    let server = bind(of_host(&["1-ff00:0:110,[127.0.0.1]:0"])).0.unwrap();
    assert!(server.listeners().any(|it| it.scion.is_some()));
    let error = error_of(of_host(&["1-ff00:0:111,[127.0.0.1]:31000"]));
    assert!(error.contains("is one of 1-ff00:0:110"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_leave_by_the_routers_that_the_daemon_names() {
    let router = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    let daemon = FakeDaemon::start("1-ff00:0:110").await;
    let interface = (2, router.local_addr().unwrap().to_string());
    daemon.knows.lock().interfaces = vec![interface];
    let tracker = start_with(with_daemon(&daemon, &["1-ff00:0:110,[127.0.0.1]:0"]));

    // As a dispatcher on the host would forward it: from another address than the router's.
    let dispatcher = UdpSocket::bind(loopback()).unwrap();
    let from: ScionAddr = "2-ff00:0:210,[10.0.0.2]:40000".parse().unwrap();
    let mut connect = Vec::new();
    write_connect_request(TransactionId(7), &mut connect);
    let way = path(1);
    let template = Template::new(from, tracker.scion, Path::parse(&way).unwrap()).unwrap();
    let mut packet = Vec::new();
    template.write(&connect, &mut packet).unwrap();
    dispatcher.send_to(&packet, tracker.underlay()).unwrap();

    let mut buffer = [0; 2048];
    let received = tokio::time::timeout(Duration::from_secs(5), router.recv(&mut buffer));
    let length = received.await.expect("an answer in time").unwrap();
    let answer = parse(&buffer[..length]).unwrap();
    assert_eq!(answer.destination, from.host);
    let Message::Udp(udp) = answer.message else {
        panic!("not a datagram")
    };
    let reply = parse_reply(udp.payload, Layout::Scion4).unwrap();
    assert!(matches!(reply, Reply::Connect { transaction, .. } if transaction == TransactionId(7)));
    tracker.stop().await;
}
