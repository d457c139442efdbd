//! The certificates that a client trusts.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// The certificates that a client trusts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Trust {
    /// Certificates of the authorities that the system trusts.
    #[default]
    System,
    /// Certificates of the authorities in this PEM file only.
    File(PathBuf),
    /// Any certificate: the connection is encrypted, but not authenticated. For tests in a lab.
    Anyone,
}

/// Why the trusted certificates cannot be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The file is missing or is not PEM.
    #[error("cannot read certificates from {}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The error of the file.
        source: pem::Error,
    },
    /// The file contains no certificate of an authority.
    #[error("{} contains no CA certificate", .0.display())]
    Empty(PathBuf),
    /// The TLS library reported an error.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

impl Trust {
    /// Makes a TLS client configuration. The transport sets ALPN.
    pub(crate) fn config(&self) -> Result<ClientConfig, TrustError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let roots = match self {
            Self::System => system_roots(),
            Self::File(path) => read_roots(path)?,
            Self::Anyone => {
                return Ok(builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(AnyCertificate(
                        provider.signature_verification_algorithms,
                    )))
                    .with_no_client_auth());
            }
        };
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// Loads the certificates of the system. Without any, every certificate is refused.
fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::debug!("cannot load a system certificate: {error}");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

fn read_roots(path: &PathBuf) -> Result<RootCertStore, TrustError> {
    let certs: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| TrustError::Pem {
            path: path.clone(),
            source,
        })?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certs);
    if roots.is_empty() {
        return Err(TrustError::Empty(path.clone()));
    }
    Ok(roots)
}

/// Accepts any certificate, but verifies that the server has its key.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused() {
        let missing = Trust::File("/nonexistent/ca.pem".into());
        assert!(matches!(missing.config(), Err(TrustError::Pem { .. })));
        let empty = Trust::File("/dev/null".into());
        assert!(matches!(empty.config(), Err(TrustError::Empty(_))));
        assert!(Trust::Anyone.config().is_ok());
        assert!(Trust::System.config().is_ok());
    }
}
