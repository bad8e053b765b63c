//! Runs a server: from the checked options to its end.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use super::clients::{self, KeySources};
use super::handover::listen_for_successors;
use super::kept::KeptState;
use super::options::RunOptions;
use super::reload::{Reload, handle_signals};
use super::setup::{LoadedSetup, Setup, Targets};
use super::status::Status;
use crate::activity::RecordMode;
use crate::proxy::{self, Proxy};
use crate::server::{self, Listener, ServerTls, StopHandle};
use crate::shell::quoted;
use crate::{demo, logger, service, threads, transport};

/// The time between two looks at which upstreams are to be asked how they are.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// Why a server did not start, or ended by itself: text for the operator.
#[derive(Debug)]
pub enum ServeFailure {
    /// The configuration has a mistake. Another start with the same one would fail as well.
    Configuration(String),
    /// Anything else, such as a port in use.
    System(String),
}

/// Serves until a signal ends the server.
///
/// # Errors
/// The server cannot start, or its listener failed.
pub fn serve(options: RunOptions) -> Result<(), ServeFailure> {
    use ServeFailure::Configuration;
    logger::start(options.log_level, options.log_format);
    let text = |error: io::Error| ServeFailure::System(error.to_string());
    check_record(&options).map_err(Configuration)?;
    let options = Arc::new(options);
    let (listener, others) = listeners(&options.listen).map_err(ServeFailure::System)?;
    let address = listener.local_addr().map_err(text)?;
    if let Some(file) = &options.ca_file {
        transport::trust(file).map_err(|why| Configuration(format!("--ca-file: {why}")))?;
    }
    let tls = options.tls.clone().map(|(certificate, key)| ServerTls::load(certificate, key)).transpose();
    let tls = tls.map_err(Configuration)?.map(Arc::new);
    let targets = Targets::of(&options).map_err(Configuration)?;
    let is_demo = targets.is_demo;
    let addresses = addresses_of(&listener, &others).map_err(text)?;
    let setup = Setup::new(Arc::clone(&options), targets).map_err(Configuration)?;
    let LoadedSetup { gateway, master_key, .. } = setup.load(None).map_err(Configuration)?;
    let keys = KeySources::new(&options);
    let read = keys.read(master_key.as_ref()).map_err(Configuration)?;
    let access = clients::access(&options, &addresses, read).map_err(Configuration)?;
    let needs_key = !access.keys.is_empty();
    let proxy = Arc::new(Proxy::new(gateway, access, proxy_options(&options)));
    proxy.warn_of_unknown_owners();
    let shared = setup.shared();
    let status = Status::new(&proxy);
    let stop = StopHandle::new().map_err(text)?;
    let reload =
        Reload { setup, keys, proxy: Arc::clone(&proxy), status: Arc::clone(&status), tls: tls.clone() };
    handle_signals(reload, stop.clone()).map_err(ServeFailure::System)?;
    // A successor waits here until the process before it hands the sockets over.
    service::await_turn().map_err(text)?;
    let kept = KeptState::open(options.state.clone(), &proxy, shared).map_err(text)?;
    let sockets = std::iter::once(&listener).chain(&others).map(TcpListener::try_clone);
    let sockets = sockets.collect::<Result<Vec<_>, _>>().map_err(text)?;
    if let Err(error) = listen_for_successors(sockets, Arc::clone(&status), stop.clone(), kept.clone()) {
        log::warn!("reloads by a new process are not possible: {error}");
    }
    // In the background, so that a start does not wait for a machine that is off.
    proxy.gateway().refresh_in_background();
    let watched = Arc::clone(&proxy);
    threads::every("watch", WATCH_PERIOD, move || watched.gateway().keep_current()).map_err(text)?;
    announce((scheme(tls.is_some()), address), &options.prefix, is_demo, needs_key);
    if options.is_busy {
        demo::begin(address).map_err(text)?;
        let line = format!("Look at the boxes at http://{address}/ui: made-up people work with them.\n\n");
        let _ = io::stdout().write_all(line.as_bytes());
    }
    let heartbeat = Status::heartbeat();
    let mut heartbeats = vec![heartbeat.clone()];
    for other in others {
        let its_own = Status::heartbeat();
        heartbeats.push(its_own.clone());
        let other = Listener { socket: other, tls: tls.clone() };
        server::spawn("listen", other, proxy.clone(), options.server, stop.clone(), its_own).map_err(text)?;
    }
    status.begin(heartbeats, &stop).map_err(text)?;
    service::confirm();
    let stopped = Arc::clone(&proxy);
    let listener = Listener { socket: listener, tls };
    server::run(listener, proxy, options.server, stop, &heartbeat).map_err(text)?;
    stopped.activity().refusals().report();
    stopped.gateway().hooks().report_left_out();
    if let Some(kept) = kept {
        kept.close();
    }
    log::info!("stopped");
    Ok(())
}

/// The part of the options that each request needs.
fn proxy_options(options: &RunOptions) -> proxy::ProxyOptions {
    proxy::ProxyOptions {
        prefix: options.prefix.clone(),
        memory_max: options.memory_max,
        body_timeout: options.server.body_timeout,
        body_total_timeout: options.server.body_total_timeout,
        patience: options.patience,
        metrics_open: options.metrics_open,
        metrics_by_client: options.metrics_by_client,
        record: options.record,
    }
}

/// The addresses of all sockets.
fn addresses_of(first: &TcpListener, others: &[TcpListener]) -> io::Result<Vec<SocketAddr>> {
    std::iter::once(first).chain(others).map(TcpListener::local_addr).collect()
}

/// Checks that recordings have a folder.
fn check_record(options: &RunOptions) -> Result<(), String> {
    let has_folder = options.state.is_some() || service::state_folder().is_some();
    match options.record.mode == RecordMode::Off || has_folder {
        true => Ok(()),
        false => Err("--record needs a folder to write to: add --state DIR".to_owned()),
    }
}

/// The sockets to listen on: those of the service manager, otherwise one on the given address. Returns the first socket
/// and the others.
fn listeners(listen: &str) -> Result<(TcpListener, Vec<TcpListener>), String> {
    let handed = service::listeners().map_err(|error| format!("a socket of the service manager: {error}"))?;
    let is_other =
        |socket: &TcpListener| socket.local_addr().is_ok_and(|address| address.to_string() != listen);
    if listen != RunOptions::default().listen && !handed.is_empty() && handed.iter().all(is_other) {
        let ignored = format!(
            "--listen {listen} has no effect: the socket unit names the address (systemctl edit sparkgap.socket)"
        );
        // A reload must not seem to have changed the address.
        if service::is_successor() {
            return Err(ignored);
        }
        log::warn!("{ignored}");
    }
    let mut handed = handed.into_iter();
    if let Some(first) = handed.next() {
        if listen != RunOptions::default().listen {
            log::warn!(
                "--listen {listen} is ignored: the socket of the service manager sets the address (systemctl edit sparkgap.socket)"
            );
        }
        return Ok((first, handed.collect()));
    }
    let bound = match listen.parse::<u16>() {
        // All addresses, as under systemd: IPv6 and IPv4 by one socket, or IPv4 alone where IPv6 is switched off.
        Ok(port) => {
            let every: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
            TcpListener::bind(&every.map(|ip| SocketAddr::new(ip, port))[..])
        }
        Err(_) => TcpListener::bind(listen),
    };
    let bound = bound.map_err(|error| {
        format!(
            "cannot listen on {listen}: {error}; choose PORT or ADDRESS:PORT, such as 127.0.0.1:4000, with --listen"
        )
    })?;
    Ok((bound, Vec::new()))
}

fn scheme(is_secure: bool) -> &'static str {
    if is_secure { "https" } else { "http" }
}

fn announce((scheme, address): (&str, SocketAddr), prefix: &str, is_demo: bool, needs_key: bool) {
    let base = format!("{scheme}://{address}{prefix}");
    log::info!("sparkgap {} listens on {base}", env!("CARGO_PKG_VERSION"));
    if is_demo {
        let line = start_line((scheme, address), prefix, needs_key);
        let text = format!(
            "sparkgap listens on {base}\nStart Claude Code against it, in another terminal, with:\n\n  {line}\n\n"
        );
        // Errors are ignored: if the reader of stdout has left, nobody needs the instructions.
        let _ = io::stdout().write_all(text.as_bytes());
    }
}

/// The shell line that starts Claude Code with this server. It runs `sparkgap claude` by the path of this program,
/// since sparkgap may not be on `PATH`. A line with a few variables before `claude` would lack most of the variables
/// that `sparkgap claude` sets, and with `ANTHROPIC_API_KEY` the first start of Claude Code asks for a login at
/// Anthropic.
fn start_line((scheme, address): (&str, SocketAddr), prefix: &str, needs_key: bool) -> String {
    let ip = match address.ip() {
        // The server listens on every address of this machine; the loopback address always exists.
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let base = format!("{scheme}://{}{prefix}", SocketAddr::new(ip, address.port()));
    let program = std::env::current_exe().ok().and_then(|program| program.to_str().map(quoted));
    let program = program.unwrap_or_else(|| "sparkgap".to_string());
    let key = if needs_key { "SPARKGAP_API_KEY=KEY " } else { "" };
    format!("SPARKGAP_URL={} {key}{program} claude", quoted(&base))
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
            let line = start_line(("http", address.parse().unwrap()), "/llm", false);
            assert!(line.starts_with(expected) && line.ends_with(" claude"), "{line}");
        }
        let line = start_line(("https", "127.0.0.1:1".parse().unwrap()), "", true);
        assert!(line.contains(" SPARKGAP_API_KEY=KEY "), "{line}");
    }
}
