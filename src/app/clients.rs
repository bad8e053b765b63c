//! The keys that clients must send: those of the key file or the environment, and LiteLLM's master key.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::options::RunOptions;
use crate::access::{Access, Keys};
use crate::config::Secret;
use crate::litellm::MasterKey;
use crate::service;

/// The variable or systemd credential with the keys of clients, in the form of a file of `--api-key-file`.
const CLIENT_KEYS: &str = "SPARKGAP_CLIENT_KEYS";

/// The most bytes of a file of keys: more than 100,000 keys with names. A wrong path, such as that of a device, must not
/// fill the memory.
const FILE_SIZE_MAX: usize = 4 * 1024 * 1024;

/// The places that the keys come from, for the start and for each reload.
#[derive(Clone, Debug)]
pub(super) struct KeySources {
    file: Option<PathBuf>,
    /// True if the file was a regular file at the start, so that it can be read again.
    is_regular: bool,
    /// The LiteLLM file that is run.
    litellm: PathBuf,
}

impl KeySources {
    /// The places that these options name. Nothing is read yet.
    pub(super) fn new(options: &RunOptions) -> Self {
        let litellm = options.sources.litellm.clone().unwrap_or_default();
        let file = options.api_key_file.clone();
        let is_regular = file.as_ref().is_some_and(|file| file.is_file());
        KeySources { file, is_regular, litellm }
    }

    /// Reads all keys, and logs a warning for each line that is most likely a mistake. `master_key` is that of the LiteLLM
    /// file that is run.
    ///
    /// # Errors
    /// The keys cannot be read, or a source of keys has none.
    pub(super) fn read(&self, master_key: Option<&MasterKey>) -> Result<Keys, String> {
        let mut keys = match (&self.file, service::variable(CLIENT_KEYS)) {
            (Some(file), _) => {
                let name = file.display().to_string();
                let text = read_file(file).map_err(|why| format!("{name}: {why}"))?;
                read(&text, &name)?
            }
            (None, Some(text)) => read(&text, CLIENT_KEYS)?,
            (None, None) => Keys::default(),
        };
        match master_key {
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
    pub(super) fn read_again(&self, master_key: Option<&MasterKey>) -> Result<Option<Keys>, String> {
        let is_special = |file: &PathBuf| std::fs::metadata(file).is_ok_and(|found| !found.is_file());
        let Some(file) = self.file.as_ref().filter(|file| is_special(file)) else {
            return self.read(master_key).map(Some);
        };
        if self.is_regular {
            log::warn!(
                "{}: it is not a regular file any more, so the previous keys of clients still count",
                file.display()
            );
        }
        Ok(None)
    }
}

/// Reads a file of keys, with a limit on its size.
fn read_file(file: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(FILE_SIZE_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let opened = File::open(file).map_err(|error| error.to_string())?;
    opened.take(limit).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() > FILE_SIZE_MAX {
        return Err(format!("it has more than {FILE_SIZE_MAX} bytes, the most that a file of keys may have"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
        let line = valid.filter(|byte| **byte == b'\n').count() + 1;
        format!("line {line} is not valid UTF-8")
    })
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
            "{address} can be reached from other machines: name a file of keys with --api-key-file, put keys into {CLIENT_KEYS}, or let everybody in with --allow-anonymous (instead of sparkgap demo, which has neither option: sparkgap serve --upstream demo)"
        ));
    }
    Ok(Access {
        keys,
        hosts: options.allowed_hosts.clone(),
        origins: options.allowed_origins.clone(),
        proxies: options.trusted_proxies.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_keys_is_text_of_a_limited_size() {
        let file = std::env::temp_dir().join(format!("sparkgap-keys-{}", std::process::id()));
        for (bytes, expected) in [
            (b"sk-1\n".to_vec(), Ok("sk-1\n".to_owned())),
            (b"sk-1\n\nsk-\xff\n".to_vec(), Err("line 3 is not valid UTF-8")),
            (vec![b'#'; FILE_SIZE_MAX + 1], Err("it has more than 4194304 bytes")),
        ] {
            std::fs::write(&file, bytes).unwrap();
            match (read_file(&file), expected) {
                (Err(error), Err(expected)) => assert!(error.starts_with(expected), "{error}"),
                (read, expected) => assert_eq!(read.ok(), expected.ok()),
            }
        }
        std::fs::remove_file(&file).unwrap();
        assert!(read_file(&file).unwrap_err().starts_with("No such file"));
    }
}
