//! The program as a black box: what it prints, how it exits, what beats what.

use scion_tracker::server::Kind;

use crate::common;

#[test]
fn a_server_in_a_test_starts_and_stops() {
    let running = common::start(common::config());
    assert_ne!(running.address(Kind::Udp).port(), 0);
    assert!(running.url(Kind::Http3).starts_with("h3://127.0.0.1:"));
    running.stop();
}
