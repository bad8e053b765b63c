//! How the connections to an upstream are made: further headers, a proxy, and the authorities of TLS.

use std::path::PathBuf;

use super::{Secret, ServerUrl};

/// The most headers that one upstream gets beside the usual ones.
pub const HEADERS_MAX: usize = 32;

/// The longest value of such a header, in bytes. Servers take 8 to 16 KiB for all headers together.
pub const HEADER_SIZE_MAX: usize = 4096;

/// Headers that describe the connection or the body, which the transport sets itself.
const RESERVED: [&str; 8] = [
    "host",
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
    "accept-encoding",
    "expect",
    "upgrade",
];

/// How the connections to one upstream are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionSettings {
    /// Headers of every request. Their values may be keys, so they are never shown.
    pub headers: Vec<(String, Secret)>,
    /// The proxy that all connections go through, by `CONNECT`: `http://10.0.0.1:3128`.
    pub http_proxy: Option<String>,
    /// The PEM file of the authorities that its certificate is checked against, instead of the usual ones.
    pub ca_file: Option<PathBuf>,
    /// False if its certificate is not checked at all.
    pub verifies_tls: bool,
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        ConnectionSettings { headers: Vec::new(), http_proxy: None, ca_file: None, verifies_tls: true }
    }
}

impl ConnectionSettings {
    /// Checks the name of a further header. `has_key`: the upstream has an `api_key`, which is sent as `Authorization`.
    ///
    /// # Errors
    /// The reason why the name cannot be used, and what to do.
    pub fn check_header(name: &str, has_key: bool) -> Result<(), String> {
        let lower = name.to_ascii_lowercase();
        if RESERVED.contains(&lower.as_str()) {
            return Err("sparkgap sets this header itself; leave it out".into());
        }
        if lower == "authorization" && has_key {
            return Err("api_key is sent in this header; leave one of the two out".into());
        }
        Ok(())
    }

    /// The host and the port of a proxy.
    ///
    /// # Errors
    /// The text says what is expected.
    pub fn proxy_address(url: &str) -> Result<(String, u16), String> {
        let expected = || {
            let form = "expected the address of a proxy such as \"http://10.0.0.1:3128\"";
            // A name and a password may stand in it.
            match url.contains('@') {
                true => format!(
                    "{form}, without a name and a password: a proxy that asks for them cannot be used"
                ),
                false => format!("{form}, got \"{url}\""),
            }
        };
        let parsed = ServerUrl::parse(url).map_err(|_| expected())?;
        let is_plain = !parsed.is_secure && matches!(parsed.path.as_str(), "" | "/");
        if is_plain { Ok((parsed.host, parsed.port)) } else { Err(expected()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_plain_address() {
        assert_eq!(ConnectionSettings::proxy_address("http://10.0.0.1:3128"), Ok(("10.0.0.1".into(), 3128)));
        for url in ["https://a:1", "a:1", "http://a/x", "http://u:p@a", "socks5://a", ""] {
            let error = ConnectionSettings::proxy_address(url).unwrap_err();
            assert!(error.starts_with("expected the address of a proxy"), "{error}");
        }
        let error = ConnectionSettings::proxy_address("http://user:secret@a:1").unwrap_err();
        assert!(error.contains("without a name and a password") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn headers_of_the_connection_are_refused() {
        assert!(ConnectionSettings::check_header("Content-Length", false).is_err());
        assert!(ConnectionSettings::check_header("Authorization", true).is_err());
        assert!(ConnectionSettings::check_header("Authorization", false).is_ok());
        assert!(ConnectionSettings::check_header("x-org", true).is_ok());
    }
}
