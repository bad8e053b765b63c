//! The keys that clients must send: those of the key file or the environment, and LiteLLM's master key.

use std::net::SocketAddr;
use std::path::Path;

use super::options::RunOptions;
use crate::access::{Access, Keys};
use crate::config::Secret;
use crate::litellm::MasterKey;
use crate::service;

/// The variable or systemd credential with the keys of clients, in the form of a file of `--api-key-file`.
const CLIENT_KEYS: &str = "SPARKGAP_CLIENT_KEYS";

/// Decides which clients may send requests. `master_key` is that of the LiteLLM file that is run.
///
/// # Errors
/// The keys cannot be read; or other machines can reach one of the addresses without a key, and no option allows that.
pub(super) fn access(
    options: &RunOptions,
    addresses: &[SocketAddr],
    master_key: Option<MasterKey>,
) -> Result<Access, String> {
    let mut keys = read_keys(options.api_key_file.as_deref())?;
    match master_key {
        Some(MasterKey::Literal(key)) => keys.add(key, "master"),
        Some(MasterKey::Environment(name)) => {
            let file = options.sources.litellm.as_deref().unwrap_or(Path::new("")).display();
            let unset =
                || format!("{file}: its master_key is the environment variable {name}, which is not set");
            keys.add(Secret::new(service::variable(&name).ok_or_else(unset)?), "master");
        }
        None => {}
    }
    let open = addresses.iter().find(|address| !address.ip().is_loopback());
    if let Some(address) = open.filter(|_| keys.is_empty() && !options.allow_anonymous) {
        return Err(format!(
            "{address} can be reached from other machines: name a file of keys with --api-key-file, or let everybody in with --allow-anonymous"
        ));
    }
    Ok(Access {
        keys,
        hosts: options.allowed_hosts.clone(),
        origins: options.allowed_origins.clone(),
        proxies: options.trusted_proxies.clone(),
    })
}

fn read_keys(file: Option<&Path>) -> Result<Keys, String> {
    match (file, service::variable(CLIENT_KEYS)) {
        (Some(file), _) => {
            let text =
                std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            Keys::read(&text).map_err(|error| format!("{}: {error}", file.display()))
        }
        (None, Some(text)) => Keys::read(&text).map_err(|error| format!("{CLIENT_KEYS}: {error}")),
        (None, None) => Ok(Keys::default()),
    }
}
