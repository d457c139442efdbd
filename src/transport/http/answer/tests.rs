use super::*;

#[test]
fn the_absolute_form_leads_where_its_path_does() {
    for (target, expected) in [
        ("/announce?a", ("/announce", "a")),
        ("http://tracker:80/announce?a", ("/announce", "a")),
        ("http://tracker?info_hash=x", ("", "info_hash=x")),
        ("http://tracker", ("/", "")),
        ("/other?u=://x/announce", ("/other", "u=://x/announce")),
        ("*", ("*", "")),
        ("", ("", "")),
    ] {
        assert_eq!(path_and_query(target), expected, "{target}");
    }
}

#[test]
fn decimals() {
    for number in [0, 7, 10, 12_345, usize::MAX] {
        assert_eq!(
            decimal(number, &mut [0; 20]),
            number.to_string().into_bytes()
        );
    }
}

#[test]
fn head_is_answered_as_get_and_changes_nothing() {
    use scion_tracker_core::Tracker;
    use scion_tracker_core::registry::Registry as _;
    use scion_tracker_core::registry::memory::{Ceilings, Memory};
    use scion_tracker_core::types::InfoHash;

    use crate::transport::Limits;
    use crate::watch::Watch;

    let tracker = Tracker::observed(
        Memory::new(Ceilings::default(), [1, 2, 3, 4]),
        Watch::default(),
    );
    let service = Service::new(tracker, Rules::default(), Limits::default());
    let ask = |method, port: u16, rest: &str| {
        let target = format!(
            "/announce?info_hash={}&peer_id={}&port={port}{rest}",
            "h".repeat(20),
            "p".repeat(20)
        );
        let request = Request::decode(&RawRequest {
            method,
            target: &target,
            client: Client::Known(Origin::ip([192, 0, 2, 1].into())),
            early: false,
        });
        Scratch::with(|scratch| {
            let reply = answer(&service, Transport::Http, &request, scratch);
            (reply, String::from_utf8_lossy(&scratch.body).into_owned())
        })
    };
    let counts = || {
        let counts = service.tracker.registry().scrape(&InfoHash([b'h'; 20]));
        (counts.seeders, counts.leechers, counts.completed)
    };
    assert_eq!(ask(Method::Get, 1, "&left=9").0, BENCODED);
    assert_eq!(counts(), (0, 1, 0));
    for (port, rest) in [
        (1, "&left=0&event=completed"),
        (1, "&left=0&event=stopped"),
        (2, "&left=9&event=started"),
        (3, "&left=0"),
    ] {
        let (reply, body) = ask(Method::Head, port, rest);
        assert_eq!(reply, BENCODED);
        assert!(body.starts_with("d8:completei0e10:downloadedi0e"), "{body}");
        assert_eq!(counts(), (0, 1, 0));
    }
    assert_eq!(ask(Method::Get, 1, "&left=0&event=completed").0, BENCODED);
    assert_eq!(counts(), (1, 0, 1));
}

#[test]
fn the_date_is_one_that_http_knows() {
    let date = Scratch::with(|scratch| scratch.date().to_owned());
    assert!(httpdate::parse_http_date(&date).is_ok(), "{date}");
}
