//! Our own resources: what they answer, and that the tracker obeys.

use serde_json::{Value, json};

use super::{Tracker, announce_query, exchange, hex, request};

#[test]
fn keys_are_kept_with_note_and_owner() {
    let tracker = Tracker::start_with(|config| config.access.private = true);
    let announce = |key: &str| {
        let answer = tracker.announce(&format!("{}&passkey={key}", announce_query(1, 6881, 1)));
        answer.contains("8:interval")
    };
    let new = json!({ "note": "spring\u{1b}", "owner": "alice", "seconds_valid": 600 });
    let made = tracker.send("POST", "/api/v2/keys", &new);
    assert_eq!(made.status, 201, "{made:?}");
    let made = made.json();
    let key = made["key"].as_str().unwrap();
    assert_eq!(
        (&made["note"], &made["owner"]),
        (&new["note"], &new["owner"])
    );
    assert!(announce(key) && !announce("other"));
    let one = format!("/api/v2/keys/{key}");
    assert_eq!(tracker.ask("GET", &one).json(), made);
    let changed = tracker.send("PUT", &one, &json!({}));
    assert_eq!(changed.json()["valid_until"], Value::Null);
    assert_eq!(changed.json()["created"], made["created"]);
    for name in ["k1", "k2", "k3"] {
        let put = tracker.send("PUT", &format!("/api/v2/keys/{name}"), &json!({}));
        assert_eq!(put.status, 200);
    }
    let page = tracker.ask("GET", "/api/v2/keys?offset=1&limit=2").json();
    assert_eq!((&page["total"], &page["offset"]), (&json!(4), &json!(1)));
    assert_eq!(page["entries"].as_array().unwrap().len(), 2);
    assert_eq!(
        tracker.ask("DELETE", &one).json(),
        json!({ "removed": true })
    );
    assert!(!announce(key));
    assert_eq!(tracker.ask("DELETE", &one).status, 404);
    assert_eq!(tracker.ask("GET", &one).status, 404);
    for (method, target, body) in [
        ("POST", "/api/v2/keys", json!({ "key": "a b" })),
        ("POST", "/api/v2/keys", json!({ "key": 1 })),
        ("POST", "/api/v2/keys", json!({ "unknown": 1 })),
        ("POST", "/api/v2/keys", json!({ "note": "x".repeat(1001) })),
        ("PUT", "/api/v2/keys/a%20b", json!({})),
        ("PUT", "/api/v2/keys/a", json!([])),
    ] {
        let reply = tracker.send(method, target, &body);
        assert_eq!(reply.status, 400, "{target} {body}: {reply:?}");
        assert!(reply.json()["error"].is_string(), "{reply:?}");
    }
    for query in ["limit=0", "limit=10001", "limit=x", "offset=-1"] {
        let reply = tracker.ask("GET", &format!("/api/v2/keys?{query}"));
        assert_eq!(reply.status, 400, "{query}: {reply:?}");
    }
}

#[test]
fn lists_are_changed_one_by_one_and_as_text() {
    let tracker = Tracker::start();
    let text = |path: &str, text: &str| {
        let headers = ["Content-Type: text/plain; charset=utf-8"];
        let request = request("POST", path, &headers, text);
        exchange(tracker.unix(), &request)
    };
    let lines = format!("# two\n{} first\n\n{}\n", hex(1), hex(2));
    let added = text("/api/v2/allow", &lines).json();
    assert_eq!(added, json!({ "new": 2, "known": 0, "removed_peers": 0 }));
    let added = text("/api/v2/allow", &lines).json();
    assert_eq!(added, json!({ "new": 0, "known": 2, "removed_peers": 0 }));
    let wrong = text("/api/v2/allow", &format!("{}\nXX\n", hex(3)));
    assert_eq!(wrong.status, 400);
    assert!(
        wrong.body.contains("line 2: an info hash is 40"),
        "{wrong:?}"
    );
    let listed = tracker.ask("GET", "/api/v2/allow").json();
    assert_eq!(listed["entries"], json!([hex(1), hex(2)]));
    let one = format!("/api/v2/allow/{}", hex(1));
    assert_eq!(tracker.ask("DELETE", &one).status, 200);
    assert_eq!(tracker.ask("DELETE", &one).status, 404);
    // A hash of version 2 is cut to 20 bytes.
    let long = format!("/api/v2/allow/{}{}", hex(4), "00".repeat(12));
    assert_eq!(tracker.ask("PUT", &long).json()["new"], true);

    tracker.announce(&announce_query(1, 6881, 1));
    tracker.announce(&announce_query(2, 6881, 1));
    let denied = tracker.ask("PUT", &format!("/api/v2/deny/{}", hex(1)));
    assert_eq!(denied.json(), json!({ "new": true, "removed_peers": 1 }));
    assert!(
        tracker
            .announce(&announce_query(1, 6881, 1))
            .contains("failure")
    );
    let denied = text("/api/v2/deny", &hex(2)).json();
    assert_eq!(denied, json!({ "new": 1, "known": 0, "removed_peers": 1 }));
    for hash in [1, 2] {
        let path = format!("/api/v2/deny/{}", hex(hash));
        assert_eq!(tracker.ask("DELETE", &path).status, 200);
    }
    assert!(
        tracker
            .announce(&announce_query(1, 6881, 1))
            .contains("8:interval")
    );
}

#[test]
fn many_hashes_are_added_at_once() {
    let tracker = Tracker::start();
    let lines: String = (0..20_000u32).map(|at| format!("{at:040x}\n")).collect();
    let headers = ["Content-Type: text/plain"];
    let request = request("POST", "/api/v2/allow", &headers, &lines);
    let added = exchange(tracker.unix(), &request);
    assert_eq!(added.json()["new"], 20_000, "{added:?}");
    assert_eq!(
        tracker.ask("GET", "/api/v2/stats").json()["allowed"],
        20_000
    );
}

#[test]
fn rules_replace_those_of_the_configuration() {
    let tracker = Tracker::start();
    let serves = |hash: u8| {
        let answer = tracker.announce(&announce_query(hash, 6881, 1));
        answer.contains("8:interval")
    };
    assert_eq!(tracker.ask("GET", "/api/v2/rules").status, 404);
    let rules = json!({
        "allow_networks": [],
        "deny_networks": ["192.0.2.0/24"],
        "allow_clients": [],
        "deny_clients": ["-qB"],
        "isd_as": "- 1-ff00:0:110, +",
        "proven": true,
    });
    let put = tracker.send("PUT", "/api/v2/rules", &rules);
    assert_eq!(put.json(), rules);
    assert_eq!(tracker.ask("GET", "/api/v2/rules").json(), rules);
    assert!(!serves(1));
    assert_eq!(tracker.ask("DELETE", "/api/v2/rules").status, 200);
    assert_eq!(tracker.ask("DELETE", "/api/v2/rules").status, 404);
    assert!(serves(1));
    let mapped = json!({ "deny_networks": ["::ffff:192.0.2.1", "::ffff:198.51.100.0/120"] });
    let put = tracker.send("PUT", "/api/v2/rules", &mapped).json();
    let v4 = json!(["192.0.2.1/32", "198.51.100.0/24"]);
    assert_eq!(put["deny_networks"], v4);
    assert_eq!(tracker.ask("DELETE", "/api/v2/rules").status, 200);
    let one = format!("/api/v2/rules/torrents/{}", hex(1));
    assert_eq!(tracker.ask("GET", &one).status, 404);
    let put = tracker.send("PUT", &one, &json!({ "deny_networks": ["127.0.0.1"] }));
    assert_eq!(put.json()["deny_networks"], json!(["127.0.0.1/32"]));
    assert!(!serves(1) && serves(2));
    let listed = tracker.ask("GET", "/api/v2/rules/torrents").json();
    assert_eq!(listed["entries"][0]["info_hash"], hex(1));
    assert_eq!(tracker.ask("GET", &one).status, 200);
    assert_eq!(tracker.ask("DELETE", &one).status, 200);
    assert!(serves(1));
    for wrong in [
        json!({ "deny_networks": ["10.0.0.1/8"] }),
        json!({ "deny_networks": ["host"] }),
        json!({ "deny_clients": [""] }),
        json!({ "isd_as": "+ 1" }),
        json!({ "isds": [] }),
    ] {
        let reply = tracker.send("PUT", "/api/v2/rules", &wrong);
        assert_eq!(reply.status, 400, "{wrong}: {reply:?}");
    }
}

#[test]
fn bans_end_by_themselves_or_by_the_operator() {
    let tracker = Tracker::start();
    let serves = || {
        let answer = tracker.announce(&announce_query(1, 6881, 1));
        answer.contains("8:interval")
    };
    assert!(serves());
    let ban = json!({ "target": "127.0.0.1", "seconds": 600, "reason": "test" });
    let banned = tracker.send("POST", "/api/v2/bans", &ban).json();
    assert_eq!(banned["target"], "127.0.0.1/32");
    assert!(!serves());
    let listed = tracker.ask("GET", "/api/v2/bans").json();
    assert_eq!(listed["entries"], json!([banned]));
    let target = "/api/v2/bans?target=127.0.0.1%2F32";
    assert_eq!(tracker.ask("DELETE", target).status, 200);
    assert_eq!(tracker.ask("DELETE", target).status, 404);
    assert!(serves());
    for (method, target) in [
        ("DELETE", "/api/v2/bans"),
        ("DELETE", "/api/v2/bans?target=x"),
    ] {
        assert_eq!(tracker.ask(method, target).status, 400, "{target}");
    }
    let wrong = tracker.send("POST", "/api/v2/bans", &json!({ "target": "localhost" }));
    assert_eq!(wrong.status, 400);
    let scion = json!({ "target": "1-ff00:0:110,10.0.0.1" });
    let banned = tracker.send("POST", "/api/v2/bans", &scion).json();
    assert_eq!(banned["target"], "1-ff00:0:110,10.0.0.1/32");
    assert_eq!(tracker.ask("GET", "/api/v2/hosts").status, 200);
}

#[test]
fn a_torrent_is_isolated_in_its_isds() {
    let tracker = Tracker::start();
    let query = |ia: &str, port: u16| format!("{}&ia={ia}", announce_query(1, port, 1));
    tracker.announce(&query("1-ff00:0:110", 6881));
    tracker.announce(&query("2-ff00:0:210", 6882));
    let one = format!("/api/v2/isolation/{}", hex(1));
    let isolated = tracker.send("PUT", &one, &json!({ "isds": [1] }));
    assert_eq!(
        isolated.json(),
        json!({ "removed_peers": 1 }),
        "{isolated:?}"
    );
    assert!(
        tracker
            .announce(&query("2-ff00:0:210", 6882))
            .contains("failure")
    );
    let listed = tracker.ask("GET", "/api/v2/isolation").json();
    let entry = json!({ "info_hash": hex(1), "isds": [1], "proven": false });
    assert_eq!(listed["entries"], json!([entry]));
    let torrent = tracker.ask("GET", &format!("/api/v2/torrents/{}", hex(1)));
    assert_eq!(
        torrent.json()["isolation"],
        json!({ "isds": [1], "proven": false })
    );
    for wrong in [json!([0]), json!([64, 0]), json!([65_536])] {
        let reply = tracker.send("PUT", &one, &json!({ "isds": wrong }));
        assert_eq!(reply.status, 400, "{reply:?}");
    }
    assert_eq!(tracker.ask("DELETE", &one).status, 200);
    assert_eq!(tracker.ask("DELETE", &one).status, 404);
    assert!(
        tracker
            .announce(&query("2-ff00:0:210", 6882))
            .contains("8:interval")
    );
    assert_eq!(
        tracker.send("PUT", &one, &json!({ "isds": [1.0] })).status,
        200
    );
    let wrong = tracker.send("PUT", &one, &json!({ "isds": [65536] }));
    assert_eq!(wrong.status, 400);
}

#[test]
fn torrents_are_paged_filtered_and_sorted() {
    let tracker = Tracker::start();
    for hash in 1..=5 {
        for peer in 0..hash {
            let left = u64::from(peer % 2);
            let query = announce_query(hash, 7000 + u16::from(peer), left);
            tracker.announce(&query);
        }
    }
    let hashes = |query: &str| -> Vec<u8> {
        let reply = tracker.ask("GET", &format!("/api/v2/torrents?{query}"));
        let json = reply.json();
        let entries = json["entries"]
            .as_array()
            .unwrap_or_else(|| panic!("{reply:?}"));
        let hash = |it: &Value| u8::from_str_radix(&it["info_hash"].as_str().unwrap()[..2], 16);
        entries.iter().map(|it| hash(it).unwrap()).collect()
    };
    for (query, expected) in [
        ("", &[1, 2, 3, 4, 5][..]),
        ("order=desc&limit=3", &[5, 4, 3]),
        ("offset=10000", &[]),
        ("sort=peers", &[5, 4, 3, 2, 1]),
        (&format!("sort=peers&after={}", hex(3)), &[5, 4]),
        ("sort=peers&order=asc&limit=2", &[1, 2]),
        ("sort=leechers&limit=2", &[4, 5]),
        ("offset=1&limit=2", &[2, 3]),
        ("least_peers=4", &[4, 5]),
        ("prefix=03", &[3]),
        ("prefix=0303030", &[3]),
        ("prefix=04&least_peers=5", &[]),
        (&format!("after={}&limit=2", hex(2)), &[3, 4]),
    ] {
        assert_eq!(hashes(query), expected, "{query}");
    }
    let page = tracker
        .ask("GET", "/api/v2/torrents?limit=2&offset=4")
        .json();
    assert_eq!((&page["total"], &page["offset"]), (&json!(5), &json!(4)));
    for query in ["limit=0", "sort=x", "order=x", "prefix=x", "after=x"] {
        let reply = tracker.ask("GET", &format!("/api/v2/torrents?{query}"));
        assert_eq!(reply.status, 400, "{query}: {reply:?}");
    }
}

#[test]
fn a_torrent_has_peers_by_isd_and_as() {
    let tracker = Tracker::start();
    for (ia, port, left) in [
        ("1-ff00:0:110", 6881, 0),
        ("1-ff00:0:110", 6882, 1),
        ("2-ff00:0:210", 6883, 1),
    ] {
        tracker.announce(&format!("{}&ia={ia}", announce_query(1, port, left)));
    }
    tracker.announce(&announce_query(1, 6884, 1));
    let path = format!("/api/v2/torrents/{}", hex(1));
    let torrent = tracker.ask("GET", &path).json();
    assert_eq!(
        (&torrent["seeders"], &torrent["leechers"]),
        (&json!(1), &json!(3))
    );
    let places = json!([
        { "isd_as": null, "seeders": 0, "leechers": 1, "proven": 0 },
        { "isd_as": "1-ff00:0:110", "seeders": 1, "leechers": 1, "proven": 0 },
        { "isd_as": "2-ff00:0:210", "seeders": 0, "leechers": 1, "proven": 0 },
    ]);
    assert_eq!(torrent["places"], places);
    assert_eq!(torrent["counted"], 4);
    let peers = torrent["peers"].as_array().unwrap();
    assert_eq!(peers.len(), 4);
    let seeder = peers.iter().find(|peer| peer["seeder"] == true).unwrap();
    assert_eq!(seeder["isd_as"], "1-ff00:0:110");
    assert_eq!(seeder["address"], "127.0.0.1:6881");
    assert_eq!(seeder["client"], "qBittorrent");
    assert_eq!(
        tracker.ask("GET", &format!("{path}?peers=0")).json()["peers"],
        json!([])
    );
    let all = tracker.ask("GET", "/api/v2/places").json();
    let isds = json!([
        { "isd": 1, "seeders": 1, "leechers": 1 },
        { "isd": 2, "seeders": 0, "leechers": 1 },
    ]);
    assert_eq!(all["isds"], isds);
    let unknown = format!("/api/v2/torrents/{}", hex(2));
    assert_eq!(tracker.ask("GET", &unknown).status, 404);
    tracker.ask("PUT", &format!("/api/v2/deny/{}", hex(2)));
    assert_eq!(tracker.ask("GET", &unknown).json()["denied"], true);
}

#[test]
fn the_description_names_every_route() {
    let tracker = Tracker::start();
    let description = tracker.ask("GET", "/api/openapi.json").json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = description["paths"].as_object().unwrap();
    assert!(paths.len() > 20, "{}", paths.len());
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("200") || responses.contains_key("201"));
            let method = method.to_uppercase();
            // What is described exists: it needs a token, or has an answer.
            let target = path
                .replace("{info_hash}", &hex(9))
                .replace("{key}", "abc")
                .replace("{seconds_valid_or_key}", "5");
            let status = tracker.over_tcp(&method, &target, &[]).status;
            let expected = ["200", "401"].map(|it| it.parse::<u16>().unwrap());
            assert!(expected.contains(&status), "{method} {path}: {status}");
            assert!(
                responses.contains_key(&status.to_string()),
                "{method} {path}: {status}"
            );
        }
    }
}

#[test]
fn what_does_not_exist_is_answered_with_a_reason() {
    let tracker = Tracker::start();
    for (method, target, status, allow) in [
        ("GET", "/api/v2/nothing", 404, None),
        ("PUT", "/api/v2/allow/", 404, None),
        ("PATCH", "/api/v2/keys", 405, Some("allow: get,head,post")),
    ] {
        let reply = tracker.ask(method, target);
        assert_eq!(reply.status, status, "{method} {target}: {reply:?}");
        assert!(reply.json()["error"].is_string(), "{reply:?}");
        assert!(
            allow.is_none_or(|allow| reply.head.contains(allow)),
            "{reply:?}"
        );
    }
    let other = tracker.ask("GET", "/api/v1/nothing");
    assert_eq!((other.status, &*other.body), (404, "there is no such path"));
}

#[test]
fn a_body_of_optional_fields_may_be_missing() {
    let tracker = Tracker::start();
    let description = tracker.ask("GET", "/api/openapi.json").json();
    for (path, status, schema) in [
        ("/api/v2/drain", 200, "DrainRequest"),
        ("/api/v2/keys", 201, "NewKey"),
        ("/api/v1/keys", 200, "AddKey"),
    ] {
        let reply = tracker.ask("POST", path);
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        let text = ["Content-Type: text/plain"];
        let reply = exchange(tracker.unix(), &request("POST", path, &text, "{}"));
        assert_eq!(reply.status, 415, "{path}: {reply:?}");
        let null = tracker.send("POST", path, &Value::Null);
        assert_eq!(null.status, 400, "{path}: {null:?}");
        let body = &description["paths"][path]["post"]["requestBody"];
        let schema = format!("#/components/schemas/{schema}");
        let expected =
            json!({ "content": { "application/json": { "schema": { "$ref": schema } } } });
        assert_eq!(*body, expected, "{path}");
    }
    let keys = tracker.ask("GET", "/api/v2/keys").json();
    assert_eq!(keys["total"], 2);
    assert_eq!(keys["entries"][0]["valid_until"], Value::Null);
    // What has a field that is needed wants a body.
    assert_eq!(tracker.ask("POST", "/api/v2/bans").status, 415);
}
