//! Decoders and state machines for the targets in `fuzz/`, with the properties that hold for any
//! input. Compiled with `--cfg fuzzing`, as cargo-fuzz does, and in tests, which start from the
//! same seeds.

pub use crate::client::fuzz::{
    client_http_reply, client_udp_reply, client_url, daemon_messages, hosts_file, path_policy,
};
pub use crate::config::fuzz::config;
pub use crate::scion::fuzz::{remotes, topology};
pub use crate::snapshot::format::fuzz::snapshot;
pub use crate::transport::fuzz::{
    admission, http1_head, http3_control, http3_request, proxy_header,
};

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Checks each seed of a target, unchanged and with some bytes changed, inserted or removed.
    fn check(target: &str, holds: fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/seeds")
            .join(target);
        let mut rng = fastrand::Rng::with_seed(1);
        for seed in fs::read_dir(seeds).unwrap() {
            let seed = fs::read(seed.unwrap().path()).unwrap();
            holds(&seed);
            for _ in 0..200 {
                let mut bytes = seed.clone();
                for _ in 0..rng.usize(1..4) {
                    let at = rng.usize(0..=bytes.len());
                    match rng.u8(0..3) {
                        0 => bytes.insert(at, rng.u8(..)),
                        1 => bytes.truncate(at),
                        _ => bytes
                            .iter_mut()
                            .skip(at)
                            .take(1)
                            .for_each(|byte| *byte = rng.u8(..)),
                    }
                }
                holds(&bytes);
            }
        }
    }

    #[test]
    fn decoder_properties_hold_for_the_seeds() {
        check("http1_head", http1_head);
        check("http3_request", http3_request);
        check("http3_control", http3_control);
        check("proxy_header", proxy_header);
        check("topology", topology);
        check("daemon_messages", daemon_messages);
        check("client_url", client_url);
        check("client_http_reply", client_http_reply);
        check("client_udp_reply", client_udp_reply);
        check("path_policy", path_policy);
        check("hosts_file", hosts_file);
        check("config", config);
        check("snapshot", snapshot);
    }

    #[test]
    fn state_machines_keep_their_limits() {
        check("admission", admission);
        check("remotes", remotes);
        let mut rng = fastrand::Rng::with_seed(2);
        for _ in 0..2000 {
            let mut bytes = [0; 150];
            rng.fill(&mut bytes);
            admission(&bytes);
            remotes(&bytes);
        }
    }
}
