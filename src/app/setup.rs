//! The upstreams, hooks and limits of one server: loaded at the start, and again at each reload.

use std::sync::{Arc, Mutex, PoisonError};

use super::configure::{DEMO, found_upstreams, load, named_upstreams};
use super::find_server::{Search, USUAL_PORTS};
use super::options::RunOptions;
use crate::fleet::Gateway;
use crate::litellm::{self, MasterKey};
use crate::{config, demo, hooks};

/// The addresses of upstreams from the command line, or found in its place.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    urls: Vec<String>,
    /// True if the command line names them. Only named upstreams get the key.
    is_named: bool,
    /// True if one of them is the demo upstream.
    pub(super) is_demo: bool,
}

impl Targets {
    /// The upstreams of `--upstream`, otherwise a server found on this machine, otherwise the demo. Starts the demo if
    /// it is one of them.
    pub(super) fn of(options: &RunOptions) -> Result<Targets, String> {
        let mut urls = options.sources.upstreams.clone();
        let is_named = options.sources.name_upstreams();
        if !is_named {
            urls.push(find(options)?);
        }
        let mut is_demo = false;
        // Each box of a busy demo is slower than the one before.
        let mut times = 1.0;
        for url in urls.iter_mut().filter(|url| *url == DEMO) {
            let started = if options.is_busy { demo::start_box(times) } else { demo::start() };
            times += 0.8;
            *url = started.map_err(|error| format!("cannot start the demo upstream: {error}"))?;
            is_demo = true;
        }
        Ok(Targets { urls, is_named, is_demo })
    }

    /// The configurations of these upstreams, with the key if the command line names them.
    fn upstreams(&self, options: &RunOptions) -> Result<Vec<config::UpstreamConfig>, String> {
        match self.is_named {
            true => named_upstreams(&self.urls, options.sources.upstream_key_file.as_deref()),
            false => found_upstreams(&self.urls),
        }
    }
}

/// Searches the usual local ports for a server, and logs which upstream is used, since none is named.
fn find(options: &RunOptions) -> Result<String, String> {
    let search = Search::run(options.sources.upstream_key_file.as_deref())?;
    let on_the_key = search.on_the_key();
    if let Some(url) = search.url {
        let level = if on_the_key.is_empty() { log::Level::Info } else { log::Level::Warn };
        log::log!(level, "no --upstream and no --hooks: took the server found at {url}{on_the_key}");
        return Ok(url);
    }
    log::warn!(
        "no --upstream, no --hooks, and no model server on the usual local ports ({USUAL_PORTS:?}): SERVING THE DEMO{on_the_key}"
    );
    Ok(DEMO.to_owned())
}

/// Everything that a reload loads again from the same files.
pub(super) struct Setup {
    options: Arc<RunOptions>,
    targets: Targets,
    /// The dictionary that all sets of hooks share.
    shared: hooks::Shared,
    /// The LiteLLM file as it was at the start, if it can be read only once, such as a pipe of the shell.
    litellm_once: Option<LitellmParts>,
    /// The summary of the LiteLLM file that was logged last. It is logged again once it differs.
    summary: Mutex<Vec<String>>,
}

/// The parts of a LiteLLM file that a load needs.
#[derive(Clone)]
struct LitellmParts {
    options: hooks::LoadOptions,
    master_key: Option<MasterKey>,
    /// The files that it includes.
    files: Vec<String>,
}

/// A gateway with everything else that its files say.
pub(super) struct LoadedSetup {
    pub(super) gateway: Gateway,
    /// The master key of the LiteLLM file, if one is run.
    pub(super) master_key: Option<MasterKey>,
    /// The files that were read.
    pub(super) files: Vec<String>,
}

impl Setup {
    /// A set-up of which only a LiteLLM file that can be read once is read.
    pub(super) fn new(options: Arc<RunOptions>, targets: Targets) -> Result<Setup, String> {
        let mut setup = Setup {
            options,
            targets,
            shared: hooks::Shared::default(),
            litellm_once: None,
            summary: Mutex::default(),
        };
        let litellm = setup.options.sources.litellm.as_ref();
        if litellm.is_some_and(|file| std::fs::metadata(file).is_ok_and(|found| !found.is_file())) {
            setup.litellm_once = Some(setup.read_litellm()?);
        }
        Ok(setup)
    }

    /// The dictionary of hooks.
    pub(super) fn shared(&self) -> hooks::Shared {
        self.shared.clone()
    }

    /// Loads the files. `old` is the gateway in force; as much of it as possible is kept.
    ///
    /// # Errors
    /// All mistakes, as text for the owner.
    pub(super) fn load(&self, old: Option<&Gateway>) -> Result<LoadedSetup, String> {
        let upstreams = self.targets.upstreams(&self.options)?;
        let once = self.litellm_once.clone();
        let parts = once.map_or_else(|| self.read_litellm(), Ok)?;
        let LitellmParts { options, master_key, files: included } = parts;
        let hook_options = hooks::LoadOptions { shared: self.shared.clone(), ..options };
        let loaded = load(&self.options.sources.hooks, upstreams, hook_options)?;
        let files = loaded.hooks.files().map(str::to_owned).chain(included).collect();
        let gateway = Gateway::after(old, loaded, &self.options.calls)?;
        warn_of_upstreams_outside(&gateway);
        Ok(LoadedSetup { gateway, master_key, files })
    }

    /// Reads the LiteLLM file, if one is run, and logs its summary, unless that is the one that was logged last.
    fn read_litellm(&self) -> Result<LitellmParts, String> {
        let (options, import) = self.options.sources.load_options()?;
        let (Some(file), Some(import)) = (&self.options.sources.litellm, import) else {
            return Ok(LitellmParts { options, master_key: None, files: Vec::new() });
        };
        let mut logged = self.summary.lock().unwrap_or_else(PoisonError::into_inner);
        if *logged != import.summary {
            for line in &import.summary {
                let level = if litellm::is_loss(line) { log::Level::Warn } else { log::Level::Info };
                log::log!(level, "{}: {line}", file.display());
            }
            log::info!("{0}: for a line on each key: sparkgap import --verbose {0}", file.display());
            logged.clone_from(&import.summary);
        }
        Ok(LitellmParts { options, master_key: import.master_key, files: import.files })
    }
}

/// Logs a warning that names every upstream outside of this network, since conversations with it leave the LAN, and every
/// upstream whose certificate is not checked.
fn warn_of_upstreams_outside(gateway: &Gateway) {
    for served in gateway.upstreams() {
        let config = served.upstream().config();
        if !config.connection.verifies_tls {
            log::warn!(
                "upstream {}: tls_verify = false: its certificate is not checked, so any machine on the way can read and change everything; ca_file = \"FILE\" trusts its own authority instead",
                served.name()
            );
        }
        if let Some(host) = config::host_outside(&served.upstream().config().url) {
            let key = if served.upstream().config().api_key.is_some() { "its key" } else { "no key" };
            log::warn!("upstream {}: {}; it gets {key}", served.name(), config::leaves_the_lan(host));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Sources;

    #[test]
    fn only_upstreams_that_are_named_get_the_key() {
        let file = std::env::temp_dir().join(format!("sparkgap-serve-key-{}", std::process::id()));
        std::fs::write(&file, "sk-1\n").unwrap();
        let sources = Sources { upstream_key_file: Some(file.clone()), ..Sources::default() };
        let options = RunOptions { sources, ..RunOptions::default() };
        for is_named in [true, false] {
            let targets = Targets { urls: vec!["http://127.0.0.1:1/v1".into()], is_named, is_demo: false };
            let upstreams = targets.upstreams(&options).unwrap();
            assert_eq!(upstreams[0].api_key.is_some(), is_named);
        }
        std::fs::remove_file(&file).unwrap();
    }
}
