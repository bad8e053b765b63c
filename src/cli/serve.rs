//! `serve` and `demo`: from options to a running server, its signals and its end.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::arguments::{Demo, Serve};
use super::status::Status;
use super::{Failed, load, print, upstreams};
use crate::access::Keys;
use crate::config::Secret;
use crate::hooks;
use crate::http::Limits;
use crate::litellm::{Import, MasterKey, Verdict};
use crate::proxy::{self, Gateway, Proxy};
use crate::server::{self, Stop};
use crate::upstream::{self, Upstream, nobody};
use crate::{demo, logger, service};

/// The usual local ports: vLLM (and this project's user), llama.cpp, Ollama, LM Studio, SGLang.
const USUAL_PORTS: [u16; 6] = [8000, 8888, 8080, 11434, 1234, 30000];

/// Long enough for a server on this machine.
const LOOK_TIMEOUT: Duration = Duration::from_millis(300);

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
        upstream::trust(file).map_err(|why| format!("--ca-file: {why}"))?;
    }
    let (urls, is_demo) = upstream_urls(options)?;
    let all = std::iter::once(&listener).chain(&others).map(TcpListener::local_addr);
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let (imported, keys) = clients(options, &all)?;
    let hook_options = hooks::Options { unsafe_hooks: options.unsafe_hooks, ..imported };
    let gateway = gateway(options, &urls, &hook_options, None)?;
    let prefix = path_prefix(&options.prefix);
    let proxy_options = proxy::Options {
        prefix: prefix.clone(),
        open_after: Duration::from_secs(options.open_after),
        ping_every: Duration::from_secs(options.ping_every),
        usage_every: Duration::from_secs(options.usage_every),
        memory_max: options.memory_max,
        body_timeout: Duration::from_secs(options.body_timeout),
    };
    let proxy = Arc::new(Proxy::new(gateway, keys, proxy_options));
    let status = Status::new(&proxy);
    let stop = Stop::new().map_err(|error| error.to_string())?;
    mind_signals(options, urls, (&proxy, &status), &stop, hook_options)?;
    discover(&proxy)?;
    announce(address, &prefix, is_demo);
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
        server::spawn("listen", other, status.clone(), server_options, stop.clone())
            .map_err(|error| error.to_string())?;
    }
    let health = format!("{prefix}/health");
    status.begin(address, health, &stop).map_err(|error| error.to_string())?;
    server::run(listener, status, server_options, stop).map_err(|error| error.to_string())?;
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

fn announce(address: SocketAddr, prefix: &str, is_demo: bool) {
    let base = format!("http://{address}{prefix}");
    log::info!("sparkgap {} listens on {base}", env!("CARGO_PKG_VERSION"));
    if is_demo {
        print(&format!(
            "sparkgap listens on {base}\nStart Claude Code against it with:\n\n  ANTHROPIC_BASE_URL={base} ANTHROPIC_API_KEY=local claude\n\n"
        ));
    }
}

/// The URLs of the upstreams, the demo started if it is one of them, or if nothing else is there.
fn upstream_urls(options: &Serve) -> Result<(Vec<String>, bool), Failed> {
    let mut urls = options.upstream.clone();
    if urls.is_empty() && options.hooks.is_empty() && options.litellm.is_none() {
        match look_for_server() {
            Some(url) => {
                log::info!("no --upstream and no --hooks: took the server found at {url}");
                urls.push(url);
            }
            None => {
                log::warn!(
                    "no --upstream, no --hooks, and no model server on the usual local ports ({USUAL_PORTS:?}): SERVING THE DEMO"
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
    Ok((urls, is_demo))
}

/// The first local server that lists models.
pub(super) fn look_for_server() -> Option<String> {
    USUAL_PORTS.into_iter().find_map(|port| {
        // Most ports have nobody: that is known at once, and no upstream needs to be made for it.
        TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), LOOK_TIMEOUT).ok()?;
        let url = format!("http://127.0.0.1:{port}/v1");
        let limits =
            upstream::Options { discovery_timeout: Duration::from_secs(2), ..upstream::Options::default() };
        let config = upstreams(std::slice::from_ref(&url), None).ok()?.pop()?;
        let found = Upstream::new(config, &limits).ok()?;
        let listed = found.discover(&nobody()).ok()?;
        (!listed.models.is_empty()).then_some(url)
    })
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
        let import = super::import::read(file)?;
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
    urls: &[String],
    hook_options: &hooks::Options,
    old: Option<&Gateway>,
) -> Result<Gateway, Failed> {
    let loaded =
        load(&options.hooks, upstreams(urls, options.upstream_key_file.as_deref())?, hook_options.clone())?;
    let limits = upstream::Options {
        connect_timeout: Duration::from_secs(options.connect_timeout),
        first_byte_timeout: Duration::from_secs(options.first_byte_timeout),
        idle_timeout: Duration::from_secs(options.idle_timeout),
        ..upstream::Options::default()
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
    server::background("discover", work).map_err(|error| error.to_string())
}

/// TERM and INT end the server in order, a second one at once; HUP loads the hooks anew.
fn mind_signals(
    options: &Serve,
    urls: Vec<String>,
    (proxy, status): (&Arc<Proxy>, &Arc<Status>),
    stop: &Stop,
    hook_options: hooks::Options,
) -> Result<(), Failed> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(|error| error.to_string())?;
    let (proxy, status, stop) = (Arc::clone(proxy), Arc::clone(status), stop.clone());
    let options = Serve {
        hooks: options.hooks.clone(),
        upstream: urls.clone(),
        upstream_key_file: options.upstream_key_file.clone(),
        ca_file: None, // taken once, at the start
        listen: String::new(),
        prefix: String::new(),
        litellm: None, // its Lua is in the hooks' options already
        api_key_file: None,
        ..*options
    };
    let work = move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                service::reloading();
                status.reloaded(reload(&options, &urls, &proxy, &hook_options));
            } else {
                log::info!("asked to stop");
                stop.trigger();
                status.stopping();
            }
        }
    };
    server::background("signals", work).map_err(|error| error.to_string())
}

/// Returns whether it was done. A broken set of files changes nothing; what is wrong with it is logged.
fn reload(options: &Serve, urls: &[String], proxy: &Arc<Proxy>, hook_options: &hooks::Options) -> bool {
    match gateway(options, urls, hook_options, Some(&proxy.gateway())) {
        Ok(gateway) => {
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
