//! The certificate and the key of the listening side, and the handshake of a new connection.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{InconsistentKeys, ServerConfig, ServerConnection};

use super::stop::{StopHandle, wait_readable};
use super::stream::{ClientStream, TlsStream};
use super::tls_socket::LimitedSocket;
use crate::http::Socket;

/// The largest file of certificates or keys, in bytes.
const FILE_SIZE_MAX: usize = 1024 * 1024;

/// The first byte of a TLS connection: a record of the handshake.
const HANDSHAKE: u8 = 0x16;

/// Certificate and key for new connections, and the files that they come from.
pub struct ServerTls {
    certificate: PathBuf,
    key: PathBuf,
    config: RwLock<Arc<ServerConfig>>,
}

/// A certificate and a key that fit together, read from their files.
pub struct TlsFiles(Arc<ServerConfig>);

impl ServerTls {
    /// Reads the certificate (with its chain) and the key from PEM files.
    ///
    /// # Errors
    /// A file cannot be read or holds something else, or the two do not belong together. The text names the file.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, String> {
        let config = RwLock::new(read(&certificate, &key)?);
        Ok(ServerTls { certificate, key, config })
    }

    /// Reads the files again, without using them yet.
    ///
    /// # Errors
    /// Those of [`ServerTls::load`].
    pub fn read_again(&self) -> Result<TlsFiles, String> {
        read(&self.certificate, &self.key).map(TlsFiles)
    }

    /// Uses these files for connections to come. Connections that are open go on.
    pub fn replace(&self, TlsFiles(config): TlsFiles) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Makes the handshake. It ends at `until`, and a stop ends the wait for its first byte.
    ///
    /// # Errors
    /// The reason why there is no connection.
    #[inline(never)] // keep this large frame out of the one that stays live while a stream runs (ARCHITECTURE.md, memory budget)
    pub(super) fn accept(
        &self,
        socket: Socket,
        stop: &StopHandle,
        (until, read_time): (Instant, Duration),
    ) -> Result<ClientStream, NoHandshake> {
        let mut first = [0];
        if !wait_readable(socket.stream(), stop, Some(until))? || socket.stream().peek(&mut first)? == 0 {
            return Err(NoHandshake::Closed);
        }
        if first != [HANDSHAKE] {
            return Err(NoHandshake::PlainHttp(socket));
        }
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        let connection = ServerConnection::new(config).map_err(io::Error::other)?;
        let mut connection = Box::new(connection);
        connection.complete_io(&mut LimitedSocket { stream: socket.stream(), until })?;
        Ok(ClientStream::Tls(TlsStream::new(socket, connection, read_time)))
    }
}

/// The reason why a connection ended before its first request.
pub(super) enum NoHandshake {
    /// The client left, sent nothing, or the server stops.
    Closed,
    /// The client speaks plain HTTP.
    PlainHttp(Socket),
    /// The handshake failed.
    Failed(io::Error),
}

impl From<io::Error> for NoHandshake {
    fn from(error: io::Error) -> Self {
        NoHandshake::Failed(error)
    }
}

fn pem_words(error: &PemError) -> String {
    match error {
        // Its own text shows the line as a list of numbers.
        PemError::MissingSectionEnd { .. } => "it is cut off: its last part has no END line".into(),
        error => error.to_string(),
    }
}

fn read(certificate: &PathBuf, key: &PathBuf) -> Result<Arc<ServerConfig>, String> {
    let in_certificate = |why: String| format!("--tls-cert {}: {why}", certificate.display());
    let in_key = |why: String| format!("--tls-key {}: {why}", key.display());
    let pem = read_file(certificate).map_err(in_certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| in_certificate(pem_words(&error)))?;
    if chain.is_empty() {
        let is_key = PrivateKeyDer::from_pem_slice(&pem).is_ok();
        let hint = if is_key { "; it holds a private key: are the two files swapped?" } else { "" };
        return Err(in_certificate(format!("no PEM certificate (BEGIN CERTIFICATE) in it{hint}")));
    }
    let pem = read_file(key).map_err(in_key)?;
    let secret = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        PemError::NoItemsFound if pem.windows(ENCRYPTED.len()).any(|bytes| bytes == ENCRYPTED) => {
            in_key("the key is encrypted: write it without a password (openssl pkey -in OLD -out NEW)".into())
        }
        PemError::NoItemsFound => in_key("no PEM private key (BEGIN PRIVATE KEY) in it".into()),
        error => in_key(pem_words(&error)),
    })?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let config = builder.with_no_client_auth().with_single_cert(chain, secret);
    let mut config = config.map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            in_key(format!("the key does not belong to the first certificate in {}", certificate.display()))
        }
        rustls::Error::InvalidCertificate(_) => {
            in_certificate(format!("the first certificate is broken: {error}"))
        }
        error => in_key(format!("the key cannot be used: {error}")),
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The mark of an encrypted key.
const ENCRYPTED: &[u8] = b"ENCRYPTED PRIVATE KEY";

/// Reads a file up to a size that no certificate has.
fn read_file(file: &PathBuf) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(|error| error.to_string())?;
    let size_max = u64::try_from(FILE_SIZE_MAX).unwrap_or(u64::MAX);
    opened.take(size_max + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > FILE_SIZE_MAX {
        return Err(format!("it has more than {FILE_SIZE_MAX} bytes, so it is not a PEM file"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("sparkgap-tls-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn each_mistake_is_named_with_its_file() {
        let certificate = PathBuf::from("tests/transport/tls/server.pem");
        let key = PathBuf::from("tests/transport/tls/server.key");
        assert!(ServerTls::load(certificate.clone(), key.clone()).is_ok());
        let empty = file("empty", "");
        let broken = file("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let encrypted = file(
            "encrypted",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        );
        let odd = file("odd", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        let ca = PathBuf::from("tests/transport/tls/ca.pem");
        let large = file("large", &"x".repeat(FILE_SIZE_MAX + 1));
        for (certificate, key, expected) in [
            (PathBuf::from("no/such"), key.clone(), ["--tls-cert no/such: ", "No such file"]),
            (empty.clone(), key.clone(), ["--tls-cert ", "no PEM certificate"]),
            (key.clone(), certificate.clone(), ["--tls-cert ", "are the two files swapped?"]),
            (broken.clone(), key.clone(), ["--tls-cert ", "is broken"]),
            (large.clone(), key.clone(), ["--tls-cert ", "more than 1048576 bytes"]),
            (certificate.clone(), PathBuf::from("no/such"), ["--tls-key no/such: ", "No such file"]),
            (certificate.clone(), empty.clone(), ["--tls-key ", "no PEM private key"]),
            (certificate.clone(), certificate.clone(), ["--tls-key ", "no PEM private key"]),
            (certificate.clone(), encrypted.clone(), ["--tls-key ", "the key is encrypted"]),
            (certificate.clone(), odd.clone(), ["--tls-key ", "the key cannot be used"]),
            (
                ca,
                key,
                ["--tls-key ", "does not belong to the first certificate in tests/transport/tls/ca.pem"],
            ),
        ] {
            let Err(error) = ServerTls::load(certificate, key) else { unreachable!("{expected:?}") };
            assert!(error.starts_with(expected[0]) && error.contains(expected[1]), "{error}");
        }
        [empty, broken, encrypted, odd, large].iter().for_each(|file| std::fs::remove_file(file).unwrap());
    }
}
