//! TLS certificates: loaded from PEM files or self-signed, and reloaded without dropping
//! connections.

mod make;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite, ServerConfig, SupportedProtocolVersion, version};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub use make::{MakeError, authority};

use crate::config::Tls;

/// Why there is no certificate to serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A PEM file is missing or malformed.
    #[error("cannot read {what} from {}", path.display())]
    Pem {
        /// The expected contents.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: pem::Error,
    },
    /// Certificate and key were read but cannot be used.
    #[error("cannot use the certificate {} with the key {}", cert.display(), key.display())]
    Unusable {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// The self-signed certificate cannot be created or stored.
    #[error("cannot create a self-signed certificate")]
    Make(#[from] MakeError),
    /// The key for session tickets cannot be created.
    #[error("cannot set up TLS")]
    Setup(#[from] rustls::Error),
}

/// The certificate of all listeners, and its source.
#[derive(Debug)]
pub struct Certificates {
    current: Arc<Current>,
    source: Source,
    tickets: Arc<dyn ProducesTickets>,
}

/// Where the certificate comes from.
#[derive(Debug)]
enum Source {
    /// It is read again.
    Files(Files),
    /// It is renewed.
    SelfSigned {
        names: Vec<String>,
        /// Where it is kept.
        directory: Option<PathBuf>,
    },
}

#[derive(Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    /// Modification times of both files at the last attempt to load them.
    modified: Mutex<[Option<SystemTime>; 2]>,
}

impl Certificates {
    /// Loads the configured files. If none are configured, loads the self-signed certificate in
    /// `data_dir`; creates it if it is missing, does not contain all of [`Tls::names`], or expires
    /// within 30 days. Without a directory the certificate is created and not stored.
    pub fn load(tls: &Tls, data_dir: Option<&Path>) -> Result<Self, TlsError> {
        let (key, source) = match (&tls.cert, &tls.key) {
            (Some(cert), Some(key)) => {
                let files = Files {
                    cert: cert.clone(),
                    key: key.clone(),
                    modified: Mutex::default(),
                };
                files.changed();
                (read(cert, key)?, Source::Files(files))
            }
            _ => {
                let source = Source::SelfSigned {
                    names: tls.names.clone(),
                    directory: data_dir.map(Path::to_path_buf),
                };
                let now = SystemTime::now();
                (make::self_signed(&tls.names, data_dir, now)?, source)
            }
        };
        Ok(Self {
            current: Arc::new(Current(ArcSwap::from_pointee(key))),
            source,
            tickets: ring::Ticketer::new()?,
        })
    }

    /// Whether the certificate is self-signed, so that clients can recognize it only by its
    /// fingerprint.
    pub const fn is_self_signed(&self) -> bool {
        matches!(self.source, Source::SelfSigned { .. })
    }

    /// SHA-256 of the certificate, as pairs of digits separated by colons.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.current.0.load().cert[0])
    }

    /// When the certificate expires. `None` if it cannot be read.
    pub fn expires(&self) -> Option<SystemTime> {
        make::expires(&self.current.0.load())
    }

    /// Loads the files again. Open connections keep their certificate. On failure the current
    /// certificate stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let Source::Files(files) = &self.source else {
            return Ok(());
        };
        files.changed();
        self.current
            .0
            .store(Arc::new(read(&files.cert, &files.key)?));
        Ok(())
    }

    /// Whether the modification time of a file differs from that at the last load or the last call.
    pub(crate) fn changed(&self) -> bool {
        match &self.source {
            Source::Files(files) => files.changed(),
            Source::SelfSigned { .. } => false,
        }
    }

    /// How long a certificate from files is still valid, if that is no more than a week: it should have
    /// been renewed. Zero if it has expired.
    pub(crate) fn expires_soon(&self, now: SystemTime) -> Option<Duration> {
        const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);
        let left = make::time_left(&self.current.0.load(), now)?;
        (!self.is_self_signed() && left <= WEEK).then_some(left)
    }

    /// Renews a self-signed certificate that expires soon. Returns whether it did. Open connections keep
    /// the old one.
    ///
    /// If the new one cannot be stored, it is used until the program ends, and the error says so.
    pub(crate) fn renew_if_due(&self, now: SystemTime) -> Result<bool, TlsError> {
        let Source::SelfSigned { names, directory } = &self.source else {
            return Ok(false);
        };
        if !make::is_due(&self.current.0.load(), now) {
            return Ok(false);
        }
        let (key, error) = match make::self_signed(names, directory.as_deref(), now) {
            Err(error @ MakeError::Write { .. }) => {
                (make::self_signed(names, None, now)?, Some(error))
            }
            made => (made?, None),
        };
        self.current.0.store(Arc::new(key));
        match error {
            Some(error) => Err(error.into()),
            None => Ok(true),
        }
    }

    /// Configuration for TLS 1.3 and 1.2 over TCP.
    pub fn server_config(&self, alpn: &[&[u8]]) -> ServerConfig {
        self.config(alpn, &[&version::TLS13, &version::TLS12])
    }

    /// Configuration for QUIC: TLS 1.3 only, no early data.
    pub fn quic_config(&self, alpn: &[&[u8]]) -> ServerConfig {
        self.config(alpn, &[&version::TLS13])
    }

    fn config(
        &self,
        alpn: &[&[u8]],
        versions: &[&'static SupportedProtocolVersion],
    ) -> ServerConfig {
        #[expect(
            clippy::expect_used,
            reason = "fails only if the provider has no suites for a version"
        )]
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(versions)
            .expect("the provider has suites for TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.current) as _);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        // Prefer AES-128: most clients list AES-256 first, whose SHA-384 takes a tenth of a
        // handshake.
        config.ignore_client_order = true;
        config.ticketer = Arc::clone(&self.tickets);
        config.send_tls13_tickets = 1;
        config
    }
}

impl Files {
    /// Whether a modification time differs from the remembered one. Remembers the new times.
    fn changed(&self) -> bool {
        let now =
            [&self.cert, &self.key].map(|path| path.metadata().and_then(|it| it.modified()).ok());
        let mut known = self.modified.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *known, now) != now
    }
}

/// The suites of ring, with AES-128-GCM first.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    provider
}

/// The certificate for handshakes. Replaced as a whole.
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Current")
            .field(&fingerprint(&self.0.load().cert[0]))
            .finish()
    }
}

fn read(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let pem = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source| TlsError::Pem { what, path, source }
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .and_then(|chain| {
            if chain.is_empty() {
                Err(pem::Error::NoItemsFound)
            } else {
                Ok(chain)
            }
        })
        .map_err(pem("a certificate", cert))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(pem("a private key", key))?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|source| TlsError::Unusable {
        cert: cert.into(),
        key: key.into(),
        source,
    })
}

fn fingerprint(cert: &CertificateDer<'_>) -> String {
    use fmt::Write as _;
    let hash = ring::cipher_suite::TLS13_AES_128_GCM_SHA256
        .tls13()
        .map(|suite| suite.common.hash_provider.hash(cert));
    let mut text = String::new();
    for byte in hash.iter().flat_map(|hash| hash.as_ref()) {
        let separator = if text.is_empty() { "" } else { ":" };
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}{byte:02X}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::Config;

    /// When a certificate expires, in seconds since 1970, and for how many seconds it is valid.
    fn validity(certificates: &Certificates) -> (u64, u64) {
        let current = certificates.current.0.load();
        let (_, cert) = x509_parser::parse_x509_certificate(&current.cert[0]).unwrap();
        let seconds = |time: x509_parser::time::ASN1Time| time.timestamp().try_into().unwrap();
        let until: u64 = seconds(cert.validity().not_after);
        let from: u64 = seconds(cert.validity().not_before);
        (until, until - from)
    }

    #[test]
    fn a_self_signed_certificate_is_renewed_before_it_expires() {
        const DAY: u64 = 24 * 60 * 60;
        let dir = tempfile::tempdir().unwrap();
        let tls = Config::default().tls;
        let load = || Certificates::load(&tls, Some(dir.path())).unwrap();
        let certificates = load();
        let first = certificates.fingerprint();
        let (until, length) = validity(&certificates);
        assert!(length < 397 * DAY, "{length}");
        let day = |before: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(until - before * DAY);
        assert!(!certificates.renew_if_due(SystemTime::now()).unwrap());
        assert!(!certificates.renew_if_due(day(31)).unwrap());
        assert_eq!(certificates.fingerprint(), first);
        assert_eq!(load().fingerprint(), first);

        assert!(certificates.renew_if_due(day(29)).unwrap());
        let second = certificates.fingerprint();
        assert_ne!(second, first);
        assert!(!certificates.renew_if_due(day(29)).unwrap());
        assert!(validity(&certificates).0 > until + 300 * DAY);
        // At the start, too: one that is not valid yet, or that expires soon.
        let kept = CertifiedKey::clone(&certificates.current.0.load());
        assert!(make::is_due(&kept, SystemTime::now()));
        assert_ne!(load().fingerprint(), second);
    }

    #[test]
    fn a_renewed_certificate_that_cannot_be_kept_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let certificates = Certificates::load(&Config::default().tls, Some(&state)).unwrap();
        let first = certificates.fingerprint();
        std::fs::remove_dir_all(&state).unwrap();
        File::create(&state).unwrap();
        let later = SystemTime::now() + Duration::from_secs(380 * 24 * 60 * 60);
        let error = certificates.renew_if_due(later).unwrap_err();
        assert!(
            matches!(error, TlsError::Make(MakeError::Write { .. })),
            "{error}"
        );
        assert_ne!(certificates.fingerprint(), first);
        assert!(!certificates.renew_if_due(later).unwrap());
    }

    #[test]
    fn a_certificate_from_files_that_expires_soon_is_noticed() {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        let dir = tempfile::tempdir().unwrap();
        authority(dir.path(), &[]).unwrap();
        let tls = Tls::files(dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let certificates = Certificates::load(&tls, None).unwrap();
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(validity(&certificates).0);
        for (now, expected) in [
            (until - 8 * DAY, None),
            (until - 7 * DAY, Some(7 * DAY)),
            (until - DAY, Some(DAY)),
            (until + DAY, Some(Duration::ZERO)),
        ] {
            assert_eq!(certificates.expires_soon(now), expected);
        }
        assert!(!certificates.renew_if_due(until).unwrap());
        let own = Certificates::load(&Config::default().tls, None).unwrap();
        assert_eq!(own.expires_soon(until + 3650 * DAY), None);
    }

    #[test]
    fn a_changed_file_is_noticed_once() {
        let dir = tempfile::tempdir().unwrap();
        authority(dir.path(), &[]).unwrap();
        let cert = dir.path().join("cert.pem");
        let tls = Tls {
            cert: Some(cert.clone()),
            key: Some(dir.path().join("key.pem")),
            ..Config::default().tls
        };
        let certificates = Certificates::load(&tls, None).unwrap();
        assert!(!certificates.changed());
        let earlier = SystemTime::now() - Duration::from_secs(3600);
        File::options()
            .write(true)
            .open(cert)
            .unwrap()
            .set_modified(earlier)
            .unwrap();
        assert!(certificates.changed());
        assert!(!certificates.changed());
    }
}
