//! Runs the demo of the README.

use scion_local_topology::{demo, install_tls_provider};

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_succeeds() {
    install_tls_provider();
    let mut out = Vec::new();
    let shown = demo::run(&mut out).await;
    let text = String::from_utf8(out).unwrap();
    shown.unwrap_or_else(|error| panic!("{error:#}\n{text}"));
    assert!(
        text.ends_with("21 peers are registered, 0 announces were lost.\n"),
        "{text}"
    );
}
