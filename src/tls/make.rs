//! Creates certificates: the self-signed one of a tracker, and a small authority for tests and
//! labs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, ServerName};

use super::{provider, read};
use crate::data_dir;

/// Names that every certificate contains.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the certificate of a tracker is valid. Some clients accept no longer ones: browsers refuse more
/// than 398 days (CA/Browser Forum Baseline Requirements, section 6.3.2).
const LIFETIME: Duration = Duration::from_secs(397 * DAY.as_secs() - 1);
/// How long the authority of a lab is valid.
const LIFETIME_OF_AUTHORITY: Duration = Duration::from_secs(3650 * DAY.as_secs());
/// Certificates are valid from this long ago, for clients whose clock is behind.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);
/// The self-signed certificate is renewed this long before it expires.
const RENEW: Duration = Duration::from_secs(30 * DAY.as_secs());

/// File modes for files with and without a private key.
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Why a certificate could not be created or stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError {
    /// The name is neither a DNS name nor an IP address.
    #[error("{0:?} is neither a host name nor an IP address")]
    Name(String),
    /// The certificate could not be generated.
    #[error("cannot generate the certificate")]
    Generate(#[from] rcgen::Error),
    /// The generated certificate cannot be used.
    #[error("cannot use the generated certificate")]
    Use(#[from] rustls::Error),
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Loads the self-signed certificate in this directory. Creates one if there is none that has all these
/// names and is valid for some time to come.
pub(super) fn self_signed(
    names: &[String],
    directory: Option<&Path>,
    now: SystemTime,
) -> Result<CertifiedKey, MakeError> {
    let names = with_own_names(names);
    let files = directory.map(|dir| (dir.join("self-signed.pem"), dir.join("self-signed.key")));
    if let Some((cert, key)) = &files
        && let Ok(kept) = read(cert, key)
        && names_all(&kept, &names)
        && !is_due(&kept, now)
    {
        return Ok(kept);
    }
    let params = params(&names, now)?;
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    if let (Some(directory), Some((cert_file, key_file))) = (directory, &files) {
        fs::create_dir_all(directory).map_err(cannot_write(directory))?;
        write(key_file, &key.serialize_pem(), PRIVATE)?;
        write(cert_file, &cert.pem(), PUBLIC)?;
    }
    let chain = vec![cert.der().clone()];
    Ok(CertifiedKey::from_der(
        chain,
        PrivateKeyDer::from(key),
        &provider(),
    )?)
}

/// Creates an authority, and a certificate signed by it for these names and localhost. Writes
/// `ca.pem`, `ca.key`, `cert.pem` and `key.pem` into the directory, which is created if necessary.
pub fn authority(directory: &Path, names: &[String]) -> Result<(), MakeError> {
    fs::create_dir_all(directory).map_err(cannot_write(directory))?;

    let mut params_ca = CertificateParams::default();
    params_ca
        .distinguished_name
        .push(DnType::CommonName, "scion-tracker test authority");
    let now = SystemTime::now();
    set_validity(&mut params_ca, now, LIFETIME_OF_AUTHORITY);
    params_ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params_ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca = CertifiedIssuer::self_signed(params_ca, KeyPair::generate()?)?;

    let mut params = params(&with_own_names(names), now)?;
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, &ca)?;

    write(
        &directory.join("ca.key"),
        &ca.key().serialize_pem(),
        PRIVATE,
    )?;
    write(&directory.join("ca.pem"), &ca.as_ref().pem(), PUBLIC)?;
    write(&directory.join("key.pem"), &key.serialize_pem(), PRIVATE)?;
    write(&directory.join("cert.pem"), &cert.pem(), PUBLIC)
}

fn params(names: &[String], now: SystemTime) -> Result<CertificateParams, MakeError> {
    if let Some(bad) = names
        .iter()
        .find(|name| ServerName::try_from(name.as_str()).is_err())
    {
        return Err(MakeError::Name(bad.clone()));
    }
    let mut params = CertificateParams::new(names)?;
    set_validity(&mut params, now, LIFETIME);
    params
        .distinguished_name
        .push(DnType::CommonName, "scion-tracker");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn set_validity(params: &mut CertificateParams, now: SystemTime, lifetime: Duration) {
    let from = now - CLOCK_SKEW;
    let from = from
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    // Certificates count in seconds.
    let from = Duration::from_secs(from.as_secs());
    params.not_before = date_time_ymd(1970, 1, 1) + from;
    params.not_after = params.not_before + lifetime;
}

/// When a certificate expires. `None` if it cannot be read.
pub(super) fn expires(key: &CertifiedKey) -> Option<SystemTime> {
    let (_, cert) = x509_parser::parse_x509_certificate(key.cert.first()?).ok()?;
    let until = u64::try_from(cert.validity().not_after.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(until))
}

/// How long a certificate is still valid, zero if it has expired. `None` if it cannot be read.
pub(super) fn time_left(key: &CertifiedKey, now: SystemTime) -> Option<Duration> {
    Some(expires(key)?.duration_since(now).unwrap_or_default())
}

/// Whether a self-signed certificate has to be renewed: it expires soon, or is not valid at all, or is
/// valid for longer than clients accept.
pub(super) fn is_due(kept: &CertifiedKey, now: SystemTime) -> bool {
    let Some(cert) = kept.cert.first() else {
        return true;
    };
    let Ok((_, cert)) = x509_parser::parse_x509_certificate(cert) else {
        return true;
    };
    let since_1970 = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let validity = cert.validity();
    let (from, until) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let now = seconds(since_1970);
    let is_too_long = until.saturating_sub(from) > seconds(LIFETIME);
    now < from || until.saturating_sub(now) < seconds(RENEW) || is_too_long
}

fn with_own_names(names: &[String]) -> Vec<String> {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let mut all: Vec<String> = NAMES.map(String::from).into();
    // The host name can be anything. An invalid one is left out.
    all.extend(Some(host).filter(|host| ServerName::try_from(host.as_str()).is_ok()));
    for name in names {
        if !all.contains(name) {
            all.push(name.clone());
        }
    }
    all
}

fn names_all(kept: &CertifiedKey, names: &[String]) -> bool {
    let Ok(cert) = kept.end_entity_cert().and_then(ParsedCertificate::try_from) else {
        return false;
    };
    names.iter().all(|name| {
        ServerName::try_from(name.as_str())
            .is_ok_and(|name| verify_server_name(&cert, &name).is_ok())
    })
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), MakeError> {
    data_dir::replace(path, text, mode).map_err(cannot_write(path))
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> MakeError {
    let path = path.to_path_buf();
    move |source| MakeError::Write { path, source }
}
