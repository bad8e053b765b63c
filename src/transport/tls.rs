//! The authorities that TLS trusts: the built-in ones (Mozilla's), or those of the owner's file.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// The owner's authorities. The process has one set, since trust belongs to the machine, like the configuration of its
/// resolver.
static ROOTS: OnceLock<Trusted> = OnceLock::new();

/// The same authorities, in the form of each client.
struct Trusted {
    calls: Arc<RootCertStore>,
    questions: RootCerts,
}

/// Makes upstreams that are created from now on trust only the certificates in this PEM file.
///
/// # Errors
/// The file cannot be read, or holds no certificate; the text says which.
pub fn trust(file: &Path) -> Result<(), String> {
    let pem = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut roots = RootCertStore::empty();
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("{}: {error}", file.display()))?;
        certificates.push(Certificate::from_der(&certificate).to_owned());
        // A system's authorities include some that rustls cannot use; they are skipped.
        roots.add_parsable_certificates([certificate]);
    }
    if roots.is_empty() {
        return Err(format!("{} holds no PEM certificate", file.display()));
    }
    // The first call's file stays in force; the command line makes only one call.
    let questions = RootCerts::new_with_certs(&certificates);
    let _ = ROOTS.set(Trusted { calls: Arc::new(roots), questions });
    Ok(())
}

/// The TLS configuration of one upstream's connections.
///
/// # Errors
/// Those of rustls.
pub(super) fn config() -> Result<Arc<ClientConfig>, rustls::Error> {
    let built_in = || Arc::new(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect());
    let roots: Arc<RootCertStore> = ROOTS.get().map_or_else(built_in, |trusted| Arc::clone(&trusted.calls));
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// The TLS configuration of questions: the same authorities, and the same provider of cryptography.
pub(super) fn question_config() -> TlsConfig {
    let roots = ROOTS.get().map_or(RootCerts::WebPki, |trusted| trusted.questions.clone());
    TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        for (file, complaint) in [("Cargo.toml", "holds no PEM certificate"), ("no/such", "No such file")] {
            let error = trust(Path::new(file)).unwrap_err();
            assert!(error.starts_with(file) && error.contains(complaint), "{error}");
        }
    }
}
