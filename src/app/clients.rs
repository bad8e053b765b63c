//! The keys that clients must send: those of the key file or the environment, and LiteLLM's master key.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::options::RunOptions;
use crate::access::{Access, Keys};
use crate::config::Secret;
use crate::litellm::MasterKey;
use crate::service;

/// The variable or systemd credential with the keys of clients, in the form of a file of `--api-key-file`.
const CLIENT_KEYS: &str = "SPARKGAP_CLIENT_KEYS";

/// The places that the keys come from, for the start and for each reload.
#[derive(Clone, Debug)]
pub(super) struct KeySources {
    file: Option<PathBuf>,
    /// The LiteLLM file that is run, and its master key.
    litellm: PathBuf,
    master_key: Option<MasterKey>,
}

impl KeySources {
    /// `master_key` is that of the LiteLLM file that is run.
    pub(super) fn new(options: &RunOptions, master_key: Option<MasterKey>) -> Self {
        let litellm = options.sources.litellm.clone().unwrap_or_default();
        KeySources { file: options.api_key_file.clone(), litellm, master_key }
    }

    /// Reads all keys, and logs a warning for each line that is most likely a mistake.
    ///
    /// # Errors
    /// The keys cannot be read, or a source of keys has none.
    pub(super) fn read(&self) -> Result<Keys, String> {
        let mut keys = match (&self.file, service::variable(CLIENT_KEYS)) {
            (Some(file), _) => {
                let text =
                    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
                read(&text, &file.display().to_string())?
            }
            (None, Some(text)) => read(&text, CLIENT_KEYS)?,
            (None, None) => Keys::default(),
        };
        match &self.master_key {
            Some(MasterKey::Literal(key)) => keys.add(key.clone(), "master"),
            Some(MasterKey::Environment(name)) => {
                let file = self.litellm.display();
                let unset =
                    || format!("{file}: its master_key is the environment variable {name}, which is not set");
                keys.add(Secret::new(service::variable(name).ok_or_else(unset)?), "master");
            }
            None => {}
        }
        Ok(keys)
    }

    /// Reads the keys again. `None`: they come from something other than a regular file, such as a pipe of the shell, and
    /// can be read only once.
    ///
    /// # Errors
    /// Those of [`KeySources::read`].
    pub(super) fn read_again(&self) -> Result<Option<Keys>, String> {
        let is_special = |file: &PathBuf| std::fs::metadata(file).is_ok_and(|found| !found.is_file());
        if self.file.as_ref().is_some_and(is_special) { Ok(None) } else { self.read().map(Some) }
    }
}

fn read(text: &str, source: &str) -> Result<Keys, String> {
    let (keys, warnings) = Keys::read(text).map_err(|error| format!("{source}: {error}"))?;
    for warning in warnings {
        log::warn!("{source}: {warning}");
    }
    Ok(keys)
}

/// Decides which clients may send requests.
///
/// # Errors
/// Other machines can reach one of the addresses without a key, and no option allows that.
pub(super) fn access(options: &RunOptions, addresses: &[SocketAddr], keys: Keys) -> Result<Access, String> {
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
