//! Tests of the decision about a request.

use super::*;
use crate::address::Host;

/// The requester of most tests: a client over plain IP without a place.
struct Asking {
    origin: Origin,
    passkey: Option<Passkey>,
    peer_id: Option<PeerId>,
    ia: IsdAs,
    is_proven: bool,
    now: u32,
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            origin: Origin::ip([192, 0, 2, 1].into()),
            passkey: None,
            peer_id: Some(PeerId(*b"-qB4600-000000000001")),
            ia: IsdAs::NONE,
            is_proven: false,
            now: 0,
        }
    }
}

impl Asking {
    fn with_passkey(text: &str) -> Self {
        Self {
            passkey: Some(key(text)),
            ..Self::default()
        }
    }

    fn at(ia: &str, is_proven: bool) -> Self {
        Self {
            ia: ia.parse().unwrap(),
            is_proven,
            ..Self::default()
        }
    }

    fn over_scion(ia: &str) -> Self {
        let host = Host::new(ia.parse().unwrap(), [192, 0, 2, 1].into());
        Self {
            origin: Origin::scion(host),
            ..Self::at(ia, true)
        }
    }

    fn check(&self, access: &Access, info_hash: InfoHash) -> Result<(), Refusal> {
        access.check(&Query {
            origin: &self.origin,
            info_hash: &info_hash,
            passkey: self.passkey.as_ref(),
            peer_id: self.peer_id.as_ref(),
            ia: self.ia,
            is_proven: self.is_proven,
            now: Time::from_secs(self.now),
        })
    }
}

const HASH: InfoHash = InfoHash([1; 20]);
const OTHER: InfoHash = InfoHash([2; 20]);

fn key(text: &str) -> Passkey {
    text.parse().unwrap()
}

/// The rules of a network that must not be served.
fn without_network(net: &str) -> RuleSet {
    RuleSet {
        networks: NetworkRules::new([], [net.parse().unwrap()]),
        ..RuleSet::default()
    }
}

#[test]
fn a_public_tracker_serves_with_and_without_passkeys() {
    let public = Access::default();
    assert!(!public.restricts());
    assert_eq!(Asking::default().check(&public, HASH), Ok(()));
    assert_eq!(Asking::with_passkey("any").check(&public, HASH), Ok(()));
}

#[test]
fn a_private_tracker_serves_known_passkeys_only() {
    let private = Access::private([key("alpha"), key("beta")]);
    for known in ["alpha", "beta"] {
        assert_eq!(Asking::with_passkey(known).check(&private, HASH), Ok(()));
    }
    assert_eq!(
        Asking::default().check(&private, HASH),
        Err(Refusal::PasskeyMissing)
    );
    for unknown in ["alph", "alphaa", "Alpha", "gamma"] {
        assert_eq!(
            Asking::with_passkey(unknown).check(&private, HASH),
            Err(Refusal::PasskeyUnknown)
        );
    }
}

#[test]
fn a_passkey_expires_at_its_time() {
    let mut access = Access::private([key("member")]);
    access.set_epoch(1_000_000);
    assert_eq!(
        access.add_passkey(key("guest"), Expiry::At(1_000_100)),
        None
    );
    for (now, served) in [(0, true), (99, true), (100, false), (u32::MAX, false)] {
        let guest = Asking {
            now,
            ..Asking::with_passkey("guest")
        };
        let expected = if served {
            Ok(())
        } else {
            Err(Refusal::PasskeyUnknown)
        };
        assert_eq!(guest.check(&access, HASH), expected, "{now}");
        let member = Asking {
            now,
            ..Asking::with_passkey("member")
        };
        assert_eq!(member.check(&access, HASH), Ok(()));
    }
    assert!(!access.has_expired(Time::from_secs(99)));
    assert!(access.has_expired(Time::from_secs(100)));
    access.remove_expired(Time::from_secs(100));
    assert!(!access.has_expired(Time::from_secs(u32::MAX)));
    assert_eq!(access.passkeys().len(), 1);
    assert_eq!(access.remove_passkey(&key("member")), Some(Expiry::Never));
    assert_eq!(access.remove_passkey(&key("member")), None);
    assert_eq!(
        Asking::with_passkey("member").check(&access, HASH),
        Err(Refusal::PasskeyUnknown)
    );
}

#[test]
fn lists_decide_which_torrents_are_served() {
    let mut access = Access::default();
    assert!(access.allow(HASH) && !access.allow(HASH));
    // The allow list counts only if the tracker is listed.
    assert_eq!(Asking::default().check(&access, OTHER), Ok(()));
    access.set_listed(true);
    assert_eq!(Asking::default().check(&access, HASH), Ok(()));
    let unlisted = Asking::default().check(&access, OTHER);
    assert_eq!(unlisted, Err(Refusal::TorrentUnlisted));
    assert!(access.deny(HASH) && !access.deny(HASH));
    let denied = Asking::default().check(&access, HASH);
    assert_eq!(denied, Err(Refusal::TorrentDenied));
    access.set_private(true);
    access.add_passkey(key("secret"), Expiry::Never);
    // Who has no passkey does not learn what is listed.
    for hash in [HASH, OTHER] {
        let missing = Asking::default().check(&access, hash);
        assert_eq!(missing, Err(Refusal::PasskeyMissing));
    }
    let member = Asking::with_passkey("secret");
    assert_eq!(member.check(&access, HASH), Err(Refusal::TorrentDenied));
    assert!(access.undeny(&HASH) && !access.undeny(&HASH));
    assert_eq!(member.check(&access, HASH), Ok(()));
    assert!(access.disallow(&HASH) && !access.disallow(&HASH));
    assert_eq!(member.check(&access, HASH), Err(Refusal::TorrentUnlisted));
    access.set_listed(false);
    access.set_private(false);
    assert!(!access.restricts());
}

#[test]
fn networks_that_are_named_decide() {
    let net = |text: &str| text.parse().unwrap();
    let at = |ip: &str| Asking {
        origin: Origin::ip(ip.parse().unwrap()),
        ..Asking::default()
    };
    for (allow, deny, ip, served) in [
        (&[][..], &["192.0.2.0/24"][..], "192.0.2.1", false),
        (&[], &["192.0.2.0/24"], "::ffff:192.0.2.1", false),
        (&[], &["192.0.2.0/24"], "192.0.3.1", true),
        (&["192.0.2.0/24"], &[], "192.0.2.1", true),
        (&["192.0.2.0/24"], &[], "192.0.3.1", false),
        (&["192.0.2.0/24"], &[], "2001:db8::1", false),
        (&["192.0.2.0/24"], &["192.0.2.128/25"], "192.0.2.129", false),
        (&["192.0.2.129/32"], &["192.0.2.0/24"], "192.0.2.129", true),
        (&["192.0.2.0/24"], &["192.0.2.0/24"], "192.0.2.1", false),
        (
            &["10.0.0.0/8", "0.0.0.0/0"],
            &["10.1.0.0/16"],
            "8.8.8.8",
            true,
        ),
    ] {
        let mut access = Access::default();
        access.set_rules(RuleSet {
            networks: NetworkRules::new(
                allow.iter().map(|it| net(it)),
                deny.iter().map(|it| net(it)),
            ),
            ..RuleSet::default()
        });
        let expected = if served {
            Ok(())
        } else {
            Err(Refusal::NetworkDenied)
        };
        assert_eq!(
            at(ip).check(&access, HASH),
            expected,
            "{allow:?} {deny:?} {ip}"
        );
        // The address of a SCION host is one inside its AS.
        assert_eq!(Asking::over_scion("1-1").check(&access, HASH), Ok(()));
    }
}

#[test]
fn rules_hold_for_all_torrents_or_for_one() {
    let clients = |deny: &str| ClientRules::new([], [deny.parse().unwrap()]);
    let places = |acl: &str, proven_only| PlaceRules {
        acl: acl.parse().unwrap(),
        proven_only,
    };
    let none = RuleSet::default;
    for (rules, asking, refusal) in [
        (
            without_network("192.0.2.0/24"),
            Asking::default(),
            Some(Refusal::NetworkDenied),
        ),
        (without_network("10.0.0.0/8"), Asking::default(), None),
        (
            RuleSet {
                clients: clients("-qB"),
                ..none()
            },
            Asking::default(),
            Some(Refusal::ClientDenied),
        ),
        (
            // A scrape has no peer id.
            RuleSet {
                clients: clients("-qB"),
                ..none()
            },
            Asking {
                peer_id: None,
                ..Asking::default()
            },
            None,
        ),
        (
            RuleSet {
                places: places("+ 64-0, -", false),
                ..none()
            },
            Asking::default(),
            Some(Refusal::PlaceDenied),
        ),
        (
            RuleSet {
                places: places("+ 64-0, -", false),
                ..none()
            },
            Asking::at("64-5", false),
            None,
        ),
        (
            RuleSet {
                places: places("+ 64-0, -", true),
                ..none()
            },
            Asking::at("64-5", false),
            Some(Refusal::PlaceDenied),
        ),
        (
            RuleSet {
                places: places("+ 64-0, -", true),
                ..none()
            },
            Asking::over_scion("64-5"),
            None,
        ),
    ] {
        let expected = refusal.map_or(Ok(()), Err);
        let mut globally = Access::default();
        globally.set_rules(rules.clone());
        assert_eq!(asking.check(&globally, HASH), expected, "{rules:?}");
        assert_eq!(asking.check(&globally, OTHER), expected, "{rules:?}");
        globally.set_rules(none());
        assert!(!globally.restricts());
        let mut for_one = Access::default();
        let isolation = None;
        for_one.set_torrent(
            HASH,
            TorrentRules {
                rules: rules.clone(),
                isolation,
            },
        );
        assert_eq!(asking.check(&for_one, HASH), expected, "{rules:?}");
        assert_eq!(asking.check(&for_one, OTHER), Ok(()), "{rules:?}");
        for_one.set_torrent(HASH, TorrentRules::default());
        assert!(!for_one.restricts());
    }
}

#[test]
fn an_isolated_torrent_stays_inside_its_isds() {
    let isolation = |proven_only| Isolation {
        isds: vec!["64".parse().unwrap(), "65".parse().unwrap()],
        proven_only,
    };
    let outside = Err(Refusal::TorrentIsolated);
    let unproven = Err(Refusal::PlaceUnproven);
    for (asking, expected, if_proven_only) in [
        (Asking::default(), outside, outside),
        (Asking::at("64-1", false), Ok(()), unproven),
        (Asking::at("65-ff00:0:110", true), Ok(()), Ok(())),
        (Asking::at("66-1", true), outside, outside),
        (Asking::over_scion("64-2"), Ok(()), Ok(())),
        (Asking::over_scion("1-64"), outside, outside),
    ] {
        for (proven_only, expected) in [(false, expected), (true, if_proven_only)] {
            let mut access = Access::default();
            assert_eq!(access.isolate(HASH, Some(isolation(proven_only))), None);
            assert_eq!(asking.check(&access, HASH), expected);
            assert_eq!(asking.check(&access, OTHER), Ok(()));
            assert_eq!(access.isolate(HASH, None), Some(isolation(proven_only)));
            assert!(!access.restricts());
        }
    }
}

#[test]
fn isolation_leaves_other_rules_of_a_torrent() {
    let mut access = Access::default();
    let rules = without_network("192.0.2.0/24");
    access.set_torrent(
        HASH,
        TorrentRules {
            rules,
            isolation: None,
        },
    );
    access.isolate(
        HASH,
        Some(Isolation {
            isds: vec![],
            proven_only: false,
        }),
    );
    let everyone = Asking::over_scion("1-1");
    assert_eq!(everyone.check(&access, HASH), Err(Refusal::TorrentIsolated));
    access.isolate(HASH, None);
    assert_eq!(everyone.check(&access, HASH), Ok(()));
    assert_eq!(
        Asking::default().check(&access, HASH),
        Err(Refusal::NetworkDenied)
    );
}

#[test]
fn a_ban_comes_first_and_ends() {
    let mut access = Access::private([]);
    access.set_epoch(1000);
    let target = BanTarget::host(Asking::default().origin.host);
    let ban = Ban {
        until: Some(1010),
        reason: "scans".into(),
    };
    assert_eq!(access.ban(target, ban.clone()), None);
    let at = |now| Asking {
        now,
        ..Asking::default()
    };
    assert_eq!(at(9).check(&access, HASH), Err(Refusal::HostBanned));
    assert_eq!(at(10).check(&access, HASH), Err(Refusal::PasskeyMissing));
    assert_eq!(access.bans().collect::<Vec<_>>(), [(&target, &ban)]);
    assert_eq!(access.unban(&target), Some(ban));
    assert_eq!(at(9).check(&access, HASH), Err(Refusal::PasskeyMissing));
    access.set_private(false);
    assert!(!access.restricts());
}

#[test]
fn nothing_secret_is_in_debug() {
    let access = Access::private([key("topsecret")]);
    let shown = format!("{access:?}");
    assert!(
        !shown.contains("topsecret") && shown.contains("1 entries"),
        "{shown}"
    );
}
