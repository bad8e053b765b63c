//! The authorities that TLS trusts: the built-in ones (Mozilla's), those of the owner's file, or those of one upstream's.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::config::ConnectionSettings;
use crate::hash::Fnv;

/// The owner's authorities for all upstreams that have no file of their own.
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
    // The first call's file stays in force; the command line makes only one call.
    let _ = ROOTS.set(read_authorities(file)?);
    Ok(())
}

fn read_authorities(file: &Path) -> Result<Trusted, String> {
    let pem = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut roots = RootCertStore::empty();
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| match error {
            PemError::MissingSectionEnd { .. } => {
                format!("{}: it is cut off: its last part has no END line", file.display())
            }
            error => format!("{}: {error}", file.display()),
        })?;
        certificates.push(Certificate::from_der(&certificate).to_owned());
        // A system's authorities include some that rustls cannot use; they are skipped.
        roots.add_parsable_certificates([certificate]);
    }
    if roots.is_empty() {
        return Err(format!("{} holds no PEM certificate", file.display()));
    }
    Ok(Trusted { calls: Arc::new(roots), questions: RootCerts::new_with_certs(&certificates) })
}

/// A hash of an upstream's own file of authorities. `None`: it has no such file, or it cannot be read.
pub(super) fn authorities_hash(settings: &ConnectionSettings) -> Option<u64> {
    let pem = std::fs::read(settings.ca_file.as_deref()?).ok()?;
    Some(Fnv::EMPTY.push(&pem).mixed())
}

/// The TLS configuration of one upstream, for each client.
pub(super) struct TlsSettings {
    pub(super) calls: Arc<ClientConfig>,
    pub(super) questions: TlsConfig,
}

impl TlsSettings {
    /// The settings of an upstream: the authorities of its own file, otherwise those of the process.
    ///
    /// # Errors
    /// Its file cannot be read, or holds no certificate; those of rustls.
    pub(super) fn of(settings: &ConnectionSettings) -> Result<TlsSettings, String> {
        let own = settings.ca_file.as_deref().map(read_authorities).transpose();
        let own = own.map_err(|why| format!("ca_file: {why}"))?;
        let trusted = own.as_ref().or(ROOTS.get());
        let built_in = || Arc::new(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect());
        let roots: Arc<RootCertStore> = trusted.map_or_else(built_in, |trusted| Arc::clone(&trusted.calls));
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder =
            builder.with_safe_default_protocol_versions().map_err(|error| format!("TLS: {error}"))?;
        let calls = if settings.verifies_tls {
            builder.with_root_certificates(roots).with_no_client_auth()
        } else {
            let verifier = Arc::new(Unverified(Arc::clone(&provider)));
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        };
        let questions = TlsConfig::builder()
            .root_certs(trusted.map_or(RootCerts::WebPki, |trusted| trusted.questions.clone()))
            .disable_verification(!settings.verifies_tls)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        Ok(TlsSettings { calls: Arc::new(calls), questions })
    }
}

/// Accepts every certificate, for an upstream with `tls_verify = false`. Signatures are still checked, so that the
/// connection belongs to whoever holds the certificate's key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
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
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
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
        let half = std::env::temp_dir().join(format!("sparkgap-half-{}.pem", std::process::id()));
        std::fs::write(&half, "-----BEGIN CERTIFICATE-----\nMIIB\n").unwrap();
        let error = trust(&half).unwrap_err();
        std::fs::remove_file(&half).unwrap();
        assert!(error.ends_with("it is cut off: its last part has no END line"), "{error}");
    }
}
