//! The signals of a running server: `SIGHUP` loads the files again, `SIGINT` and `SIGTERM` end it.

use std::sync::{Arc, mpsc};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::setup::Setup;
use super::status::Status;
use crate::proxy::Proxy;
use crate::server::StopHandle;
use crate::transport::nobody;
use crate::{service, threads};

/// Handles signals in a thread of its own, and reloads in another one: a file whose load never ends must not keep a
/// `SIGTERM` from being heard. The first `SIGINT` or `SIGTERM` ends the server in order, a second one at once.
///
/// # Errors
/// The handlers or a thread cannot be installed.
pub(super) fn handle_signals(
    setup: Setup,
    proxy: Arc<Proxy>,
    status: Arc<Status>,
    stop: StopHandle,
) -> Result<(), String> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(|error| error.to_string())?;
    // One reload that waits is enough: it reads the files as they are then.
    let (ask, asked) = mpsc::sync_channel::<()>(1);
    let reloaded = Arc::clone(&status);
    let reloads = move || {
        for () in asked {
            service::reloading();
            reloaded.reloaded(reload(&setup, &proxy));
        }
    };
    let work = move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                // If it is full, a reload waits already.
                let _ = ask.try_send(());
            } else {
                log::info!("asked to stop");
                stop.trigger();
                status.stopping();
            }
        }
    };
    threads::background("reload", reloads).map_err(|error| error.to_string())?;
    threads::background("signals", work).map_err(|error| error.to_string())
}

/// Loads the files again, and returns true if that succeeded. A broken set of files changes nothing; its mistakes are
/// logged.
fn reload(setup: &Setup, proxy: &Arc<Proxy>) -> bool {
    match setup.gateway(Some(&proxy.gateway())) {
        Ok(gateway) => {
            let hash = gateway.hooks().hash().to_string();
            proxy.replace(gateway);
            // Log this only now: a reader of the line may rely on the new hooks.
            log::info!("hooks loaded: {hash}");
            if let Err(error) = discover(proxy) {
                log::warn!("cannot ask the upstreams: {error}");
            }
            true
        }
        Err(failed) => {
            for line in format!("reload failed; still running the previous hooks: {failed}").lines() {
                log::error!("{line}");
            }
            false
        }
    }
}

/// Asks all upstreams for their models in a thread of its own, so that a start does not wait for a machine that is off.
///
/// # Errors
/// The thread cannot be started.
pub(super) fn discover(proxy: &Arc<Proxy>) -> Result<(), String> {
    let gateway = proxy.gateway();
    let work = move || {
        for served in gateway.upstreams() {
            let name = served.name();
            match served.upstream().discover(&nobody()) {
                Ok(found) => {
                    let models: Vec<String> = found
                        .models
                        .iter()
                        .map(|model| match model.window {
                            Some(window) => format!("{} ({window} tokens)", model.id),
                            None => model.id.clone(),
                        })
                        .collect();
                    log::info!("upstream {name}: {}, serves {}", found.flavour.name(), models.join(", "));
                }
                Err(failure) => log::warn!(
                    "upstream {name} did not answer: {failure}; it will be asked again when needed"
                ),
            }
        }
    };
    threads::background("discover", work).map_err(|error| error.to_string())
}
