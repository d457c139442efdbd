//! The calls of Torrust Index and of torrust's scripts, compared byte for byte in shape with what torrust
//! answers.

use std::net::UdpSocket;
use std::time::Duration;

use scion_tracker::server::Kind;
use serde_json::json;

use super::{Tracker, announce_query, hex};

const TOKEN: &str = "token=write-token";

/// The value with numbers replaced by 0 and long texts by their length, so that shapes compare.
fn shape(json: &str) -> String {
    let mut shape = String::new();
    let mut number = false;
    for c in json.chars() {
        if c.is_ascii_digit() && !shape.ends_with(|it: char| it.is_ascii_alphabetic()) {
            if !number {
                shape.push('0');
            }
            number = true;
        } else {
            number = false;
            shape.push(c);
        }
    }
    shape
}

#[test]
fn the_index_gets_keys() {
    let tracker = Tracker::start();
    let reply = tracker.over_tcp("POST", &format!("/api/v1/key/7257600?{TOKEN}"), &[]);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.head.contains("content-type: application/json"));
    let json = reply.json();
    let key = json["key"].as_str().unwrap();
    assert_eq!(key.len(), 32);
    assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    let rest = reply.body.replace(key, "KEY");
    assert_eq!(
        shape(&rest),
        r#"{"key":"KEY","valid_until":0,"expiry_time":"0-0-0 0:0:0 UTC"}"#
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let left = json["valid_until"].as_u64().unwrap() - now.unwrap().as_secs();
    assert!((7_257_590..=7_257_600).contains(&left), "{left}");

    let add = |body: &str| {
        let json = ["Content-Type: application/json"];
        let target = format!("/api/v1/keys?{TOKEN}");
        let request = super::request("POST", &target, &json, body);
        super::exchange(tracker.tcp(), &request)
    };
    let reply = add(r#"{"key":"xqD6NWH9TcKrOCwDmqcdH5hF5RrbL0A6","seconds_valid":null}"#);
    assert_eq!(
        reply.body,
        r#"{"key":"xqD6NWH9TcKrOCwDmqcdH5hF5RrbL0A6","valid_until":null,"expiry_time":null}"#
    );
    assert_eq!(add(r#"{"key":null,"seconds_valid":60}"#).status, 200);
    for (body, status) in [
        (r#"{"key":"a b","seconds_valid":null}"#, 400),
        (r#"{"key":null,"seconds_valid":-1}"#, 400),
        ("{", 400),
    ] {
        let reply = add(body);
        assert_eq!(reply.status, status, "{body}: {reply:?}");
        assert!(reply.head.contains("content-type: text/plain"), "{reply:?}");
    }

    for (method, target, status, body) in [
        (
            "POST",
            "/api/v1/key/-1",
            400,
            "Invalid URL: Cannot parse `-1` to a `u64`",
        ),
        (
            "DELETE",
            "/api/v1/key/xqD6NWH9TcKrOCwDmqcdH5hF5RrbL0A6",
            200,
            r#"{"status":"ok"}"#,
        ),
        (
            "DELETE",
            "/api/v1/key/xqD6NWH9TcKrOCwDmqcdH5hF5RrbL0A6",
            404,
            r#"Unhandled rejection: Err { reason: "failed to delete key: it is not known" }"#,
        ),
        (
            "DELETE",
            "/api/v1/key/a%20b",
            400,
            r#"Invalid auth key id param "a b""#,
        ),
        ("GET", "/api/v1/keys/reload", 200, r#"{"status":"ok"}"#),
    ] {
        let reply = tracker.over_tcp(method, &format!("{target}?{TOKEN}"), &[]);
        assert_eq!(
            (reply.status, &*reply.body),
            (status, body),
            "{method} {target}"
        );
    }
}

#[test]
fn the_index_lists_torrents() {
    let tracker = Tracker::start_with(|config| {
        config.admin.token = "write-token".parse().ok();
        config.access.listed = true;
    });
    let (known, ok) = (hex(1), r#"{"status":"ok"}"#);
    let announces = || tracker.announce(&announce_query(1, 6881, 0));
    assert!(announces().contains("failure reason"));
    let bad =
        r#"Invalid URL: invalid infohash param: string "XX", expected a 40 character long string"#;
    let absent = r#"Unhandled rejection: Err { reason: "failed to remove torrent from whitelist: it is not there" }"#;
    for (method, hash, status, body) in [
        ("POST", known.as_str(), 200, ok),
        ("POST", &known, 200, ok),
        ("POST", "XX", 400, bad),
        ("DELETE", "XX", 400, bad),
        ("DELETE", &hex(2), 404, absent),
        ("GET", "reload", 200, ok),
    ] {
        let target = format!("/api/v1/whitelist/{hash}?{TOKEN}");
        let reply = tracker.over_tcp(method, &target, &[]);
        assert_eq!(
            (reply.status, &*reply.body),
            (status, body),
            "{method} {hash}"
        );
    }
    assert!(announces().contains("8:interval"));
    let target = format!("/api/v1/whitelist/{known}?{TOKEN}");
    assert_eq!(tracker.over_tcp("DELETE", &target, &[]).body, ok);
    assert!(announces().contains("failure reason"));
}

#[test]
fn the_index_asks_for_torrents() {
    let tracker = Tracker::start();
    let get = |target: &str| {
        let mark = if target.contains('?') { '&' } else { '?' };
        tracker.over_tcp("GET", &format!("{target}{mark}{TOKEN}"), &[])
    };
    let unknown = get(&format!("/api/v1/torrent/{}", hex(1)));
    assert_eq!(
        (unknown.status, &*unknown.body),
        (200, r#""torrent not known""#)
    );
    tracker.announce(&announce_query(1, 6881, 0));
    tracker.announce(&announce_query(1, 6882, 5));
    tracker.announce(&announce_query(3, 6881, 5));
    let reply = get(&format!("/api/v1/torrent/{}", hex(1)));
    let json = reply.json();
    assert_eq!(
        (&json["seeders"], &json["leechers"]),
        (&1.into(), &1.into())
    );
    let peer = r#"{"peer_id":{"id":"ID","client":"qBittorrent"},"peer_addr":"0.0.0.0:0","updated":0,"updated_milliseconds_ago":0,"uploaded":0,"downloaded":0,"left":0,"event":"None"}"#;
    let id = |port: u32| {
        let id = format!("-qB4650-{port:012}");
        let hex: String = id.bytes().map(|byte| format!("{byte:02x}")).collect();
        format!("0x{hex}")
    };
    let body = reply
        .body
        .replace(&hex(1), "HASH")
        .replace(&id(6881), "ID")
        .replace(&id(6882), "ID");
    assert_eq!(
        shape(&body),
        format!(
            r#"{{"info_hash":"HASH","seeders":0,"completed":0,"leechers":0,"peers":[{peer},{peer}]}}"#
        )
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let updated = json["peers"][0]["updated"].as_u64().unwrap();
    assert!(updated.abs_diff(now.unwrap().as_millis() as u64) < 20_000);

    let item = |hash: u8, seeders: u32, leechers: u32| {
        format!(
            r#"{{"info_hash":"{}","seeders":{seeders},"completed":0,"leechers":{leechers}}}"#,
            hex(hash)
        )
    };
    let (one, three) = (item(1, 1, 1), item(3, 0, 1));
    let all = format!("[{one},{three}]");
    for (query, expected) in [
        ("", all.as_str()),
        ("?offset=1", &format!("[{three}]")),
        ("?offset=0&limit=1", &format!("[{one}]")),
        ("?limit=0", "[]"),
        (
            &format!(
                "?info_hash={}&info_hash={}&info_hash={}",
                hex(3),
                hex(2),
                hex(1)
            ),
            &format!("[{three},{one}]"),
        ),
    ] {
        let reply = get(&format!("/api/v1/torrents{query}"));
        assert_eq!((reply.status, &*reply.body), (200, expected), "{query}");
    }
    for query in ["?offset=x", "?limit=-1", "?info_hash=XX"] {
        let reply = get(&format!("/api/v1/torrents{query}"));
        assert_eq!(reply.status, 400, "{query}: {reply:?}");
    }
    assert_eq!(get("/api/v1/torrent/XX").status, 400);
}

#[test]
fn numbers_have_the_names_of_torrust() {
    let tracker = Tracker::start();
    tracker.announce(&announce_query(1, 6881, 0));
    let reply = tracker.over_tcp("GET", &format!("/api/v1/stats?{TOKEN}"), &[]);
    assert_eq!(
        reply.body,
        r#"{"torrents":1,"seeders":1,"completed":0,"leechers":0,"tcp4_connections_handled":1,"tcp4_announces_handled":1,"tcp4_scrapes_handled":0,"tcp6_connections_handled":0,"tcp6_announces_handled":0,"tcp6_scrapes_handled":0,"udp_requests_aborted":0,"udp_requests_banned":0,"udp_banned_ips_total":0,"udp_avg_connect_processing_time_ns":0,"udp_avg_announce_processing_time_ns":0,"udp_avg_scrape_processing_time_ns":0,"udp4_requests":0,"udp4_connections_handled":0,"udp4_announces_handled":0,"udp4_scrapes_handled":0,"udp4_responses":0,"udp4_errors_handled":0,"udp6_requests":0,"udp6_connections_handled":0,"udp6_announces_handled":0,"udp6_scrapes_handled":0,"udp6_responses":0,"udp6_errors_handled":0}"#
    );
    let target = format!("/api/v1/stats?{TOKEN}&format=prometheus");
    let lines = tracker.over_tcp("GET", &target, &[]);
    assert!(
        lines.body.starts_with("torrents 1\nseeders 1\n"),
        "{lines:?}"
    );
    assert_eq!(lines.body.lines().count(), 28);
    assert_eq!(
        tracker.running.url(Kind::Admin).split("//").nth(1).unwrap(),
        format!("{}/", tracker.admin)
    );
    let health = tracker.over_tcp("GET", "/api/health_check", &[]);
    assert_eq!(health.body, r#"{"status":"Ok"}"#);
    let wrong = tracker.over_tcp("GET", "/api/v1/stats?token=wrong", &[]);
    assert_eq!(
        (wrong.status, &*wrong.body),
        (
            401,
            r#"Unhandled rejection: Err { reason: "token not valid" }"#
        )
    );
}

#[test]
fn requests_over_udp_are_counted_and_timed() {
    let tracker = Tracker::start();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    udp.connect(tracker.running.address(Kind::Udp)).unwrap();
    let ask = |request: &[u8]| {
        let mut reply = [0; 1500];
        udp.send(request).unwrap();
        let length = udp.recv(&mut reply).unwrap();
        reply[..length].to_vec()
    };
    let connect = [&0x0417_2710_1980_u64.to_be_bytes()[..], &[0; 8]].concat();
    let connection = ask(&connect)[8..16].to_vec();
    // One answer in 61 is measured, the last one of these.
    for _ in 1..61 {
        ask(&connect);
    }
    let scrape = [&connection, &[0, 0, 0, 2, 0, 0, 0, 9][..], &[1; 20]].concat();
    assert_eq!(ask(&scrape)[..4], [0, 0, 0, 2]);
    // Neither is answered.
    udp.send(b"?").unwrap();
    udp.send(&[&[0; 8], &scrape[8..]].concat()).unwrap();
    ask(&connect);
    let stats = || tracker.over_tcp("GET", &format!("/api/v1/stats?{TOKEN}"), &[]);
    let stats = || stats().json();
    let before = stats();
    let ban = json!({ "target": "127.0.0.1" });
    assert_eq!(tracker.send("POST", "/api/v2/bans", &ban).status, 200);
    assert_eq!(ask(&scrape)[..4], [0, 0, 0, 3]);
    let after = stats();
    for (name, expected) in [
        ("udp4_requests", [65, 66]),
        ("udp4_connections_handled", [62, 62]),
        ("udp4_scrapes_handled", [1, 1]),
        ("udp4_responses", [63, 64]),
        ("udp4_errors_handled", [2, 3]),
        ("udp6_requests", [0, 0]),
        ("udp_requests_aborted", [0, 0]),
        ("udp_requests_banned", [0, 1]),
        ("udp_banned_ips_total", [0, 1]),
        ("udp_avg_scrape_processing_time_ns", [0, 0]),
    ] {
        assert_eq!([&before[name], &after[name]], expected, "{name}");
    }
    let mean = after["udp_avg_connect_processing_time_ns"]
        .as_u64()
        .unwrap();
    assert!(mean > 0, "{after}");
    let target = format!("/api/v1/metrics?{TOKEN}&format=prometheus");
    let lines = tracker.over_tcp("GET", &target, &[]).body;
    for line in [
        "udp_tracker_server_requests_received_total{client_address_ip_family=\"inet\"} 66",
        "udp_tracker_server_responses_sent_total{client_address_ip_family=\"inet\",result=\"error\"} 1",
        "udp_tracker_server_errors_total{client_address_ip_family=\"inet\"} 3",
        "udp_tracker_server_requests_banned_total 1",
        "udp_tracker_server_ips_banned_total 1",
    ] {
        assert!(lines.lines().any(|it| it == line), "{line}: {lines}");
    }
}

#[test]
fn metrics_have_the_shape_of_torrust() {
    let tracker = Tracker::start();
    tracker.announce(&announce_query(1, 6881, 0));
    let get = |query: &str| {
        let target = format!("/api/v1/metrics?{TOKEN}{query}");
        tracker.over_tcp("GET", &target, &[])
    };
    let reply = get("");
    assert!(reply.head.contains("content-type: application/json"));
    let json = reply.json();
    let now = json["metrics"][0]["samples"][0]["recorded_at"].as_str();
    let now = now.unwrap();
    let (date, time) = now.split_once('T').unwrap();
    assert_eq!((&*shape(date), &*shape(time)), ("0-0-0", "0:0:0+0:0"));
    let body = shape(&reply.body.replace(now, "NOW"));
    assert!(
        body.starts_with(
            r#"{"metrics":[{"type":"counter","name":"http_tracker_core_requests_received_total","unit":"count","description":"Announces and scrapes over HTTP/0.0, HTTP/0 and HTTP/0 since the start.","samples":[{"value":0,"recorded_at":"NOW","labels":[{"name":"client_address_ip_family","value":"inet"},{"name":"request_kind","value":"announce"}]},"#
        ),
        "{reply:?}"
    );
    assert!(
        body.ends_with(
            r#"{"type":"gauge","name":"udp_tracker_server_performance_avg_processing_time_ns","unit":"nanoseconds","description":"Mean time of the answers over UDP, of one answer in 0. 0: none was measured.","samples":[{"value":0.0,"recorded_at":"NOW","labels":[{"name":"request_kind","value":"connect"}]},{"value":0.0,"recorded_at":"NOW","labels":[{"name":"request_kind","value":"announce"}]},{"value":0.0,"recorded_at":"NOW","labels":[{"name":"request_kind","value":"scrape"}]}]}]}"#
        ),
        "{reply:?}"
    );
    let lines = get("&format=prometheus");
    assert!(lines.head.contains("content-type: text/plain"));
    for line in [
        "# TYPE http_tracker_core_requests_received_total counter",
        "http_tracker_core_requests_received_total{client_address_ip_family=\"inet\",request_kind=\"announce\"} 1",
        "swarm_coordination_registry_peer_connections_total{peer_role=\"seeder\"} 1",
        "swarm_coordination_registry_torrents_total 1",
    ] {
        assert!(lines.body.lines().any(|it| it == line), "{line}: {lines:?}");
    }
    assert_eq!(get("&format=xml").status, 400);
    let wrong = tracker.over_tcp("GET", "/api/v1/metrics?token=wrong", &[]);
    assert_eq!(wrong.status, 401);
}
