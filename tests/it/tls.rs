//! Tests certificates with handshakes in memory.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring::{self, cipher_suite};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore,
    ServerConfig, ServerConnection, SupportedCipherSuite,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use scion_tracker::config::{Config, Tls};
use scion_tracker::tls::{self, Certificates, TlsError};
use tempfile::TempDir;

/// An authority and a certificate in a temporary directory.
fn lab(names: &[&str]) -> TempDir {
    let dir = TempDir::new().unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
    tls::authority(dir.path(), &names).unwrap();
    dir
}

fn files(dir: &Path) -> Tls {
    Tls::files(dir.join("cert.pem"), dir.join("key.pem"))
}

fn roots(dir: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_file_iter(dir.join("ca.pem")).unwrap() {
        roots.add(cert.unwrap()).unwrap();
    }
    roots
}

/// A client that prefers the suites in this order.
fn client(roots: RootCertStore, suites: &[SupportedCipherSuite]) -> Arc<ClientConfig> {
    let mut provider = ring::default_provider();
    provider.cipher_suites = suites.into();
    ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
        .into()
}

/// The two ends of a connection.
struct Connection {
    client: ClientConnection,
    server: ServerConnection,
}

impl Connection {
    fn open(
        client: &Arc<ClientConfig>,
        server: ServerConfig,
        name: &str,
    ) -> Result<Self, rustls::Error> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = Self {
            client: ClientConnection::new(Arc::clone(client), name)?,
            server: ServerConnection::new(server.into())?,
        };
        connection.exchange()?;
        assert!(!connection.client.is_handshaking() && !connection.server.is_handshaking());
        Ok(connection)
    }

    /// Transfers the bytes of both sides until neither sends any more.
    fn exchange(&mut self) -> Result<(), rustls::Error> {
        let mut bytes = Vec::new();
        while self.client.wants_write() || self.server.wants_write() {
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            let mut unread = bytes.as_slice();
            while !unread.is_empty() {
                self.server.read_tls(&mut unread).unwrap();
                self.server.process_new_packets()?;
            }
            bytes.clear();
            while self.server.wants_write() {
                self.server.write_tls(&mut bytes).unwrap();
            }
            let mut unread = bytes.as_slice();
            while !unread.is_empty() {
                self.client.read_tls(&mut unread).unwrap();
                self.client.process_new_packets()?;
            }
            bytes.clear();
        }
        Ok(())
    }

    fn certificate(&self) -> CertificateDer<'static> {
        self.client.peer_certificates().unwrap()[0]
            .clone()
            .into_owned()
    }
}

#[test]
fn rustls_verifies_the_chain_that_cert_makes() {
    let lab = lab(&["tracker.example", "10.0.0.1"]);
    let certificates = Certificates::load(&files(lab.path()), None).unwrap();
    let client = client(roots(lab.path()), ring::ALL_CIPHER_SUITES);
    for name in [
        "tracker.example",
        "10.0.0.1",
        "localhost",
        "127.0.0.1",
        "::1",
    ] {
        Connection::open(&client, certificates.server_config(&[]), name).unwrap();
        Connection::open(&client, certificates.quic_config(&[]), name).unwrap();
    }
    let stranger = Connection::open(&client, certificates.server_config(&[]), "other.example");
    assert!(stranger.is_err());
}

#[test]
fn a_self_signed_certificate_can_be_a_root() {
    let dir = TempDir::new().unwrap();
    let certificates = Certificates::load(&Config::default().tls, Some(dir.path())).unwrap();
    fs::rename(
        dir.path().join("self-signed.pem"),
        dir.path().join("ca.pem"),
    )
    .unwrap();
    let client = client(roots(dir.path()), ring::ALL_CIPHER_SUITES);
    Connection::open(&client, certificates.server_config(&[]), "localhost").unwrap();
}

#[test]
fn a_reload_changes_the_certificate_and_leaves_connections_up() {
    let lab = lab(&[]);
    let certificates = Certificates::load(&files(lab.path()), None).unwrap();
    let old_client = client(roots(lab.path()), ring::ALL_CIPHER_SUITES);
    let config = certificates.server_config(&[]);
    let mut old = Connection::open(&old_client, config.clone(), "localhost").unwrap();
    let fingerprint = certificates.fingerprint();

    tls::authority(lab.path(), &[]).unwrap();
    certificates.reload().unwrap();

    let new_client = client(roots(lab.path()), ring::ALL_CIPHER_SUITES);
    let new = Connection::open(&new_client, config, "localhost").unwrap();
    assert_ne!(new.certificate(), old.certificate());
    assert_ne!(certificates.fingerprint(), fingerprint);
    use std::io::{Read as _, Write as _};
    old.client.writer().write_all(b"still here").unwrap();
    old.exchange().unwrap();
    let mut text = [0; 10];
    old.server.reader().read_exact(&mut text).unwrap();
    assert_eq!(&text, b"still here");
}

#[test]
fn a_reload_that_fails_keeps_the_certificate() {
    let lab = lab(&[]);
    let certificates = Certificates::load(&files(lab.path()), None).unwrap();
    let fingerprint = certificates.fingerprint();
    for (file, text) in [("cert.pem", ""), ("key.pem", "nonsense")] {
        fs::write(lab.path().join(file), text).unwrap();
        let error = certificates.reload().unwrap_err();
        assert!(matches!(error, TlsError::Pem { .. }), "{error}");
        assert_eq!(certificates.fingerprint(), fingerprint);
    }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let (one, other) = (lab(&[]), lab(&[]));
    let mut mixed = files(one.path());
    mixed.key = files(other.path()).key;
    assert!(matches!(
        Certificates::load(&mixed, None),
        Err(TlsError::Unusable { .. })
    ));
}

#[test]
fn aes_128_is_chosen_whatever_the_client_prefers() {
    let lab = lab(&[]);
    let certificates = Certificates::load(&files(lab.path()), None).unwrap();
    for (suites, expected, version) in [
        (
            [
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_AES_128_GCM_SHA256,
            ],
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            ProtocolVersion::TLSv1_3,
        ),
        (
            [
                cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
                cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ],
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            ProtocolVersion::TLSv1_2,
        ),
    ] {
        let client = client(roots(lab.path()), &suites);
        let open = Connection::open(&client, certificates.server_config(&[]), "localhost").unwrap();
        assert_eq!(
            open.client.negotiated_cipher_suite().unwrap().suite(),
            expected
        );
        assert_eq!(open.client.protocol_version(), Some(version));
        let quic = Connection::open(&client, certificates.quic_config(&[]), "localhost");
        assert_eq!(quic.is_ok(), version == ProtocolVersion::TLSv1_3);
    }
}

#[test]
fn one_ticket_resumes_on_any_listener() {
    let lab = lab(&[]);
    let certificates = Certificates::load(&files(lab.path()), None).unwrap();
    let client = client(roots(lab.path()), ring::ALL_CIPHER_SUITES);
    let kind = || {
        let config = certificates.server_config(&[]);
        let open = Connection::open(&client, config, "localhost").unwrap();
        assert_eq!(open.client.tls13_tickets_received(), 1);
        open.client.handshake_kind()
    };
    assert_eq!(kind(), Some(HandshakeKind::Full));
    assert_eq!(kind(), Some(HandshakeKind::Resumed));
}

#[test]
fn the_self_signed_certificate_names_the_hosts_of_public_urls() {
    use crate::cli::{Tracker, home, program};
    use rustix::process::Signal;

    for (public, expected) in [
        ("https://127.0.0.7:1", true),
        ("https://127.0.0.8:1", false),
    ] {
        let home = home();
        let mut command = program(home.path(), &["--https", "127.0.0.7:0"]);
        let mut tracker = Tracker::start(command.env("SCION_TRACKER_PUBLIC_URLS", public));
        assert_eq!(tracker.line(), format!("{public}/announce"));
        let mut log = std::io::BufReader::new(tracker.child.stderr.take().unwrap());
        let start = crate::cli::await_log(&mut log, "announce to ");
        let listening = start.split("listening on https ").nth(1).unwrap();
        let url = format!("https://{}/announce", listening.lines().next().unwrap());
        let ca = home
            .path()
            .join(".local/state/scion-tracker/self-signed.pem");
        let hash = "0123456789abcdef0123456789abcdef01234567";
        let args = ["announce", &url, "--info-hash", hash, "--port", "1", "--ca"];
        let output = program(home.path(), &args).arg(&ca).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), expected, "{said}");
        tracker.signal(Signal::TERM);
        assert!(tracker.child.wait().unwrap().success());
    }
}
