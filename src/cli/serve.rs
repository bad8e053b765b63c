//! `serve` and `demo`: from options to a running server, its signals and its end.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::arguments::{Demo, Serve};
use super::found::{Search, USUAL_PORTS};
use super::status::Status;
use super::{Failed, found_upstreams, load, print, upstreams};
use crate::access::{Access, Keys};
use crate::config::{self, Secret};
use crate::fleet::Gateway;
use crate::hooks;
use crate::http::Limits;
use crate::litellm::{Import, MasterKey, Verdict};
use crate::proxy::{self, Proxy};
use crate::server::{self, Stop};
use crate::transport::{self, nobody};
use crate::{demo, logger, service, threads};

/// `sparkgap demo`.
pub(super) fn demo(options: Demo) -> Result<(), Failed> {
    let defaults = super::with_command(vec![]);
    let defaults: Vec<&str> = defaults.iter().skip(1).map(String::as_str).collect();
    let Ok(mut serving) = <Serve as argh::FromArgs>::from_args(&["sparkgap"], &defaults) else {
        return Err("the defaults of serve do not parse".into());
    };
    serving.listen = options.listen;
    serving.log_level = options.log_level;
    serving.upstream = vec![DEMO.into()];
    serve(&serving)
}

/// The keys of clients, as in the file of `--api-key-file`: an environment variable, or a systemd credential.
const CLIENT_KEYS: &str = "SPARKGAP_CLIENT_KEYS";

/// What `--upstream` takes instead of a URL.
pub(super) const DEMO: &str = "demo";

/// `sparkgap serve`: runs until a signal ends it.
pub(super) fn serve(options: &Serve) -> Result<(), Failed> {
    logger::start(options.log_level);
    let (listener, others) = listeners(options)?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    if let Some(file) = &options.ca_file {
        transport::trust(file).map_err(|why| format!("--ca-file: {why}"))?;
    }
    let targets = Targets::of(options)?;
    let is_demo = targets.is_demo;
    let all = std::iter::once(&listener).chain(&others).map(TcpListener::local_addr);
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let (imported, keys) = clients(options, &all)?;
    let needs_key = !keys.is_empty();
    let hook_options = hooks::Options { unsafe_hooks: options.unsafe_hooks, ..imported };
    let gateway = gateway(options, &targets, &hook_options, None)?;
    warn_of_upstreams_outside(&gateway);
    let prefix = path_prefix(&options.prefix);
    let proxy_options = proxy::Options {
        prefix: prefix.clone(),
        open_after: Duration::from_secs(options.open_after),
        ping_every: Duration::from_secs(options.ping_every),
        usage_every: Duration::from_secs(options.usage_every),
        body_size_max: options.body_size_max,
    };
    let access = Access {
        keys,
        hosts: options.allow_host.clone(),
        origins: options.allow_origin.clone(),
        proxies: options.trusted_proxy.clone(),
    };
    let proxy = Arc::new(Proxy::new(gateway, access, proxy_options));
    let status = Status::new(&proxy);
    let stop = Stop::new().map_err(|error| error.to_string())?;
    mind_signals(options, targets, (&proxy, &status), &stop, hook_options)?;
    discover(&proxy)?;
    announce(address, &prefix, is_demo, needs_key);
    let limits = Limits { body_size_max: options.body_size_max, ..Limits::default() };
    let server_options = server::Options {
        connections_max: options.connections_max,
        head_timeout: Duration::from_secs(options.head_timeout),
        body_timeout: Duration::from_secs(options.body_timeout),
        write_timeout: Duration::from_secs(options.write_timeout),
        idle_timeout: Duration::from_secs(options.keep_alive),
        drain: Duration::from_secs(options.drain),
        limits,
    };
    for other in others {
        server::spawn("listen", other, proxy.clone(), server_options, stop.clone())
            .map_err(|error| error.to_string())?;
    }
    let health = format!("{prefix}/health");
    status.begin(address, health, &stop).map_err(|error| error.to_string())?;
    server::run(listener, proxy, server_options, stop).map_err(|error| error.to_string())?;
    log::info!("stopped");
    Ok(())
}

/// What to listen on: the sockets of the service manager, else `--listen`. The first, and the others.
fn listeners(options: &Serve) -> Result<(TcpListener, Vec<TcpListener>), Failed> {
    let handed = service::listeners().map_err(|error| format!("a socket of the service manager: {error}"))?;
    let mut handed = handed.into_iter();
    if let Some(first) = handed.next() {
        return Ok((first, handed.collect()));
    }
    let bound = TcpListener::bind(&options.listen).map_err(|error| {
        format!("cannot listen on {}: {error}; choose another address with --listen", options.listen)
    })?;
    Ok((bound, Vec::new()))
}

/// A prefix of paths, however its slashes were written; empty for none.
fn path_prefix(given: &str) -> String {
    let bare = given.trim_matches('/');
    if bare.is_empty() { String::new() } else { format!("/{bare}") }
}

fn announce(address: SocketAddr, prefix: &str, is_demo: bool, needs_key: bool) {
    let base = format!("http://{address}{prefix}");
    log::info!("sparkgap {} listens on {base}", env!("CARGO_PKG_VERSION"));
    if is_demo {
        let line = start_line(address, prefix, needs_key);
        print(&format!(
            "sparkgap listens on {base}\nStart Claude Code against it, in another terminal, with:\n\n  {line}\n\n"
        ));
    }
}

/// The line that starts Claude Code against this server. It goes through this very program, which need not be on the
/// path: a few variables before `claude` would leave out most of what [`super::env`] knows, and with
/// `ANTHROPIC_API_KEY` the first start of Claude Code asks for a login at Anthropic.
fn start_line(address: SocketAddr, prefix: &str, needs_key: bool) -> String {
    let ip = match address.ip() {
        // Reachable by every address of this machine, of which this one is always there.
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let base = format!("http://{}{prefix}", SocketAddr::new(ip, address.port()));
    let program = std::env::current_exe().ok().and_then(|program| program.to_str().map(super::env::quoted));
    let program = program.unwrap_or_else(|| "sparkgap".to_string());
    let key = if needs_key { "SPARKGAP_API_KEY=KEY " } else { "" };
    format!("SPARKGAP_URL={} {key}{program} claude", super::env::quoted(&base))
}

/// The upstreams that the command line means.
#[derive(Clone)]
struct Targets {
    urls: Vec<String>,
    /// Whether the command line names them. Only then they get the key for the upstreams.
    is_named: bool,
    is_demo: bool,
}

impl Targets {
    /// Those of `--upstream`, else a server on this machine, else the demo; the demo is started.
    fn of(options: &Serve) -> Result<Targets, Failed> {
        let mut urls = options.upstream.clone();
        let is_named = !urls.is_empty() || !options.hooks.is_empty() || options.litellm.is_some();
        if !is_named {
            let search = Search::run(options.upstream_key_file.as_deref())?;
            let on_the_key = search.on_the_key();
            match search.url {
                Some(url) => {
                    let level = if on_the_key.is_empty() { log::Level::Info } else { log::Level::Warn };
                    log::log!(
                        level,
                        "no --upstream and no --hooks: took the server found at {url}{on_the_key}"
                    );
                    urls.push(url);
                }
                None => {
                    log::warn!(
                        "no --upstream, no --hooks, and no model server on the usual local ports ({USUAL_PORTS:?}): SERVING THE DEMO{on_the_key}"
                    );
                    urls.push(DEMO.into());
                }
            }
        }
        let mut is_demo = false;
        for url in urls.iter_mut().filter(|url| *url == DEMO) {
            *url = demo::start().map_err(|error| format!("cannot start the demo upstream: {error}"))?;
            is_demo = true;
        }
        Ok(Targets { urls, is_named, is_demo })
    }

    /// Their configurations, with the key of the command line if they are named there.
    fn upstreams(&self, key_file: Option<&Path>) -> Result<Vec<config::Upstream>, Failed> {
        if self.is_named { upstreams(&self.urls, key_file) } else { found_upstreams(&self.urls) }
    }
}

/// Names every upstream that is not in this network: what is told to it leaves the LAN.
fn warn_of_upstreams_outside(gateway: &Gateway) {
    for served in gateway.upstreams() {
        if let Some(host) = config::host_outside(&served.upstream().config().url) {
            log::warn!("upstream {}: {}", served.name(), config::leaves_the_lan(host));
        }
    }
}

/// What a LiteLLM file gives to the hooks, and the keys that let clients in: the key file's, and LiteLLM's master key.
fn clients(options: &Serve, addresses: &[SocketAddr]) -> Result<(hooks::Options, Keys), Failed> {
    let mut keys = match (&options.api_key_file, service::variable(CLIENT_KEYS)) {
        (Some(file), _) => {
            let text =
                std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            Keys::read(&text).map_err(|error| format!("{}: {error}", file.display()))?
        }
        (None, Some(text)) => Keys::read(&text).map_err(|error| format!("{CLIENT_KEYS}: {error}"))?,
        (None, None) => Keys::default(),
    };
    let mut hook_options = hooks::Options::default();
    if let Some(file) = &options.litellm {
        let import = super::import::read_to_run(file)?;
        for line in import.report.iter().filter(|line| line.verdict == Verdict::Unsupported) {
            log::warn!("{}: {line}", file.display());
        }
        match &import.master_key {
            Some(MasterKey::Literal(key)) => keys.add(key.clone(), "master"),
            Some(MasterKey::Environment(name)) => match service::variable(name) {
                Some(key) => keys.add(Secret::new(key), "master"),
                None => {
                    return Err(format!(
                        "{}: its master_key is the environment variable {name}, which is not set",
                        file.display()
                    ));
                }
            },
            None => {}
        }
        hook_options = imported(file, import);
    }
    let open = addresses.iter().find(|address| !address.ip().is_loopback());
    if let Some(address) = open.filter(|_| keys.is_empty() && !options.allow_anonymous) {
        return Err(format!(
            "{address} can be reached from other machines: name a file of keys with --api-key-file, or let everybody in with --allow-anonymous"
        ));
    }
    Ok((hook_options, keys))
}

/// What a LiteLLM file gives to the hooks.
pub(super) fn imported(file: &Path, import: Import) -> hooks::Options {
    hooks::Options {
        texts: vec![(file.display().to_string(), import.lua)],
        environment: Arc::new(import.environment.into_iter().collect()),
        ..hooks::Options::default()
    }
}

/// `old`: what is in force now, of which as much as possible stays.
fn gateway(
    options: &Serve,
    targets: &Targets,
    hook_options: &hooks::Options,
    old: Option<&Gateway>,
) -> Result<Gateway, Failed> {
    let upstreams = targets.upstreams(options.upstream_key_file.as_deref())?;
    let loaded = load(&options.hooks, upstreams, hook_options.clone())?;
    let limits = transport::Options {
        connect_timeout: Duration::from_secs(options.connect_timeout),
        first_byte_timeout: Duration::from_secs(options.first_byte_timeout),
        idle_timeout: Duration::from_secs(options.idle_timeout),
        ..transport::Options::default()
    };
    Gateway::after(old, loaded, &limits)
}

/// Asks all upstreams what they serve, beside the serving: a start waits for no machine that is off.
fn discover(proxy: &Arc<Proxy>) -> Result<(), Failed> {
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

/// TERM and INT end the server in order, a second one at once; HUP loads the hooks anew.
fn mind_signals(
    options: &Serve,
    targets: Targets,
    (proxy, status): (&Arc<Proxy>, &Arc<Status>),
    stop: &Stop,
    hook_options: hooks::Options,
) -> Result<(), Failed> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(|error| error.to_string())?;
    let (proxy, status, stop) = (Arc::clone(proxy), Arc::clone(status), stop.clone());
    let options = Serve {
        hooks: options.hooks.clone(),
        upstream: targets.urls.clone(),
        upstream_key_file: options.upstream_key_file.clone(),
        ca_file: None, // taken once, at the start
        listen: String::new(),
        prefix: String::new(),
        litellm: None, // its Lua is in the hooks' options already
        api_key_file: None,
        allow_host: Vec::new(), // who may ask is settled at the start, too
        allow_origin: Vec::new(),
        trusted_proxy: Vec::new(),
        ..*options
    };
    let work = move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                service::reloading();
                status.reloaded(reload(&options, &targets, &proxy, &hook_options));
            } else {
                log::info!("asked to stop");
                stop.trigger();
                status.stopping();
            }
        }
    };
    threads::background("signals", work).map_err(|error| error.to_string())
}

/// Returns whether it was done. A broken set of files changes nothing; what is wrong with it is logged.
fn reload(options: &Serve, targets: &Targets, proxy: &Arc<Proxy>, hook_options: &hooks::Options) -> bool {
    match gateway(options, targets, hook_options, Some(&proxy.gateway())) {
        Ok(gateway) => {
            warn_of_upstreams_outside(&gateway);
            let hash = gateway.hooks().hash().to_string();
            proxy.replace(gateway);
            // Only now: who reads the line may count on it.
            log::info!("hooks loaded: {hash}");
            if let Err(error) = discover(proxy) {
                log::warn!("cannot ask the upstreams: {error}");
            }
            true
        }
        Err(failed) => {
            for line in format!("the hooks stay as they were: {failed}").lines() {
                log::error!("{line}");
            }
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_line_names_an_address_that_can_be_reached() {
        for (address, expected) in [
            ("127.0.0.1:4000", "SPARKGAP_URL=http://127.0.0.1:4000/llm "),
            ("0.0.0.0:4000", "SPARKGAP_URL=http://127.0.0.1:4000/llm "),
            ("[::]:4000", "SPARKGAP_URL='http://[::1]:4000/llm' "),
        ] {
            let line = start_line(address.parse().unwrap(), "/llm", false);
            assert!(line.starts_with(expected) && line.ends_with(" claude"), "{line}");
        }
        let line = start_line("127.0.0.1:1".parse().unwrap(), "", true);
        assert!(line.contains(" SPARKGAP_API_KEY=KEY "), "{line}");
    }

    #[test]
    fn only_upstreams_that_are_named_get_the_key() {
        let file = std::env::temp_dir().join(format!("sparkgap-serve-key-{}", std::process::id()));
        std::fs::write(&file, "sk-1\n").unwrap();
        for is_named in [true, false] {
            let targets = Targets { urls: vec!["http://127.0.0.1:1/v1".into()], is_named, is_demo: false };
            let upstreams = targets.upstreams(Some(&file)).unwrap();
            assert_eq!(upstreams[0].api_key.is_some(), is_named);
        }
        std::fs::remove_file(&file).unwrap();
    }
}
