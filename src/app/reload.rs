//! The signals of a running server: `SIGHUP` loads the files again, `SIGUSR1` changes the level of the log, `SIGINT` and
//! `SIGTERM` end it.

use std::sync::{Arc, mpsc};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::clients::KeySources;
use super::setup::Setup;
use super::status::Status;
use crate::proxy::Proxy;
use crate::server::{ServerTls, StopHandle};
use crate::{logger, service, threads};

/// Everything that a reload needs.
pub(super) struct Reload {
    pub(super) setup: Setup,
    pub(super) keys: KeySources,
    pub(super) proxy: Arc<Proxy>,
    pub(super) status: Arc<Status>,
    pub(super) tls: Option<Arc<ServerTls>>,
}

/// Handles signals in a thread of its own. The first `SIGINT` or `SIGTERM` ends the server in order, a second one at
/// once. Files are loaded in another thread, since a file may be a pipe that nobody writes to, and the load of
/// a Lua file may never end: a `SIGTERM` must be heard all the same.
///
/// # Errors
/// The handlers or the threads cannot be installed.
pub(super) fn handle_signals(reload: Reload, stop: StopHandle) -> Result<(), String> {
    let mut signals = Signals::new([SIGHUP, SIGUSR1, SIGINT, SIGTERM]).map_err(|error| error.to_string())?;
    let status = Arc::clone(&reload.status);
    // One reload that waits is enough: it reads the files as they are then.
    let (ask, asked) = mpsc::sync_channel::<()>(1);
    let reloads = move || {
        for () in asked {
            service::reloading();
            reload.status.reloaded(reload.run());
        }
    };
    let work = move || {
        for signal in signals.forever() {
            match signal {
                SIGHUP => {
                    // If it is full, a reload waits already.
                    let _ = ask.try_send(());
                }
                // An error, so that the line is there whatever the level; a trace shows everybody's prompts.
                SIGUSR1 => log::error!("log level: {} (SIGUSR1)", logger::next_level()),
                _ => {
                    // In this order: who reads the line finds that the server ends.
                    stop.trigger();
                    log::info!("asked to stop");
                    status.stopping();
                }
            }
        }
    };
    threads::background("reload", reloads).map_err(|error| error.to_string())?;
    threads::background("signals", work).map_err(|error| error.to_string())
}

impl Reload {
    /// Loads the files again, and returns true if that succeeded. A broken set of files changes nothing; its mistakes
    /// are logged.
    fn run(&self) -> bool {
        let proxy = &self.proxy;
        let certificate = self.tls.as_ref().map(|tls| tls.read_again()).transpose();
        let loaded = certificate.and_then(|certificate| {
            let it = self.setup.load(Some(&proxy.gateway()))?;
            Ok((it.gateway, it.files, self.keys.read_again(it.master_key.as_ref())?, certificate))
        });
        match loaded {
            Ok((gateway, files, keys, certificate)) => {
                let hash = gateway.hooks().hash().to_string();
                let keys_loaded = keys
                    .as_ref()
                    .filter(|keys| !keys.is_empty())
                    .map_or(String::new(), |keys| format!("; keys of clients loaded: {}", keys.count()));
                proxy.replace(gateway);
                if let Some((tls, certificate)) = self.tls.as_ref().zip(certificate) {
                    tls.replace(certificate);
                }
                if let Some(keys) = keys {
                    proxy.replace_keys(keys);
                }
                proxy.warn_of_unknown_owners();
                // Log this only now: a reader of the line may rely on the new hooks.
                let read =
                    if files.is_empty() { String::new() } else { format!("; read: {}", files.join(", ")) };
                log::info!("hooks loaded: {hash}{keys_loaded}{read}");
                proxy.gateway().refresh_in_background();
                true
            }
            Err(failed) => {
                for line in
                    format!("reload failed; still running the previous configuration: {failed}").lines()
                {
                    log::error!("{line}");
                }
                false
            }
        }
    }
}
