//! Tests of how listeners are written.

use super::*;

#[test]
fn listeners() {
    let address = |text: &str| text.parse::<UdpListener>().map(|it| it.address.to_string());
    assert_eq!(address("192.0.2.1:80").as_deref(), Ok("192.0.2.1:80"));
    assert_eq!(address("[::1]:0").as_deref(), Ok("[::1]:0"));
    assert_eq!(address("6969").as_deref(), Ok("[::]:6969"));
    let admin = |text: &str| {
        text.parse::<AdminListener>()
            .map(|it| it.address.to_string())
    };
    assert_eq!(admin("1212").as_deref(), Ok("127.0.0.1:1212"));
    assert_eq!(admin("[::]:1").as_deref(), Ok("[::]:1"));
    for bad in ["", "::1", "localhost:80", "[::]:65536", "192.0.2.1"] {
        assert_eq!(admin(bad), Err(ListenerError), "{bad}");
        assert_eq!(address(bad), Err(ListenerError), "{bad}");
    }
}

#[test]
fn lists_of_the_environment_take_commas_and_spaces() {
    for text in [
        "1-ff00:0:110,[10.0.0.1]:1 1-ff00:0:111,[10.0.0.1]:2",
        "1-ff00:0:110,[10.0.0.1]:1,1-ff00:0:111,[10.0.0.1]:2",
        " 1-ff00:0:110,[10.0.0.1]:1, 1-ff00:0:111,[10.0.0.1]:2 ",
    ] {
        let ports = value::list::<ScionListener>(text)
            .map(|list| list.iter().map(|it| it.port).collect::<Vec<_>>());
        assert_eq!(ports.unwrap(), [1, 2], "{text}");
    }
    let listeners = value::list::<UdpListener>("[::1]:1, [::1]:2 3").unwrap();
    assert_eq!(listeners.len(), 3);
    for empty in ["", " ", ","] {
        assert!(value::list::<UdpListener>(empty).is_err(), "{empty:?}");
    }
}

#[test]
fn a_scion_listener_is_a_text_or_a_table() {
    #[derive(Deserialize)]
    struct File {
        scion: Vec<ScionListener>,
    }
    let text = "scion = ['1-ff00:0:110,[10.0.0.1]:1', { address = '1-ff00:0:110,[10.0.0.1]:2', transports = ['udp'] }]";
    let File { scion } = toml::from_str(text).unwrap();
    let transports = scion.iter().map(|it| it.transports).collect::<Vec<_>>();
    assert_eq!(
        transports,
        [ScionTransports::UdpAndQuic, ScionTransports::Udp]
    );
    for bad in ["[]", "['quic']", "['tcp']", "'udp'", "['udp', 'udp']"] {
        let text =
            format!("scion = [{{ address = '1-ff00:0:110,[10.0.0.1]:2', transports = {bad} }}]");
        assert!(toml::from_str::<File>(&text).is_err(), "{bad}");
    }
}
