//! Whom TLS trusts: the built-in authorities (Mozilla's), or those of the owner's file.

use std::path::Path;
use std::sync::OnceLock;

use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// The owner's authorities. One set for the process: like the resolver's configuration it is the machine's.
static ROOTS: OnceLock<RootCerts> = OnceLock::new();

/// Lets the upstreams made from now on be trusted by the certificates in this PEM file alone.
///
/// # Errors
/// The file cannot be read, or holds no certificate; the text says which.
pub fn trust(file: &Path) -> Result<(), String> {
    let pem = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(format!("{}: {error}", file.display())),
        }
    }
    if certificates.is_empty() {
        return Err(format!("{} holds no PEM certificate", file.display()));
    }
    // The first call's file stays; the command line makes only one.
    let _ = ROOTS.set(RootCerts::new_with_certs(&certificates));
    Ok(())
}

/// For one upstream's agent.
pub(super) fn config() -> TlsConfig {
    let roots = ROOTS.get().cloned().unwrap_or(RootCerts::WebPki);
    TlsConfig::builder().root_certs(roots).build()
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
