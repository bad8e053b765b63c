//! `serve` and `demo`: from what was typed to the configuration of a run.

use std::time::Duration;

use super::arguments::{Demo, Serve};
use crate::activity::{RecordMode, RecordOptions};
use crate::app::{self, DEMO, RunOptions, ServeFailure, Sources};
use crate::proxy::ClientPatience;
use crate::{http, ids, server, transport};

/// `sparkgap serve`: runs until a signal ends it.
pub(super) fn serve(typed: Serve) -> Result<(), ServeFailure> {
    if typed.tls_cert.is_some() != typed.tls_key.is_some() {
        return Err(ServeFailure::Configuration(HALF_TLS.to_owned()));
    }
    app::serve(run_options(typed))
}

/// The mistake of only one of the two files for HTTPS.
pub(super) const HALF_TLS: &str =
    "--tls-cert and --tls-key belong together: give both, or neither for plain HTTP";

/// The boxes of a busy demo.
const BUSY_BOXES: usize = 3;

/// The most bytes of the recordings of a busy demo: the last few minutes.
const BUSY_RECORD_SIZE: usize = 64 * 1024 * 1024;

/// `sparkgap demo`: the same with the demo upstream alone. A busy one records its requests for the live page, in a folder
/// that goes with it.
pub(super) fn demo(typed: Demo) -> Result<(), ServeFailure> {
    let defaults = RunOptions::default();
    // Nobody can guess the name, so nobody can have made it before.
    let folder =
        typed.busy.then(|| std::env::temp_dir().join(format!("sparkgap-demo-{}", ids::request_id())));
    let record =
        RecordOptions { mode: RecordMode::All, size_max: BUSY_RECORD_SIZE, ..RecordOptions::default() };
    let served = app::serve(RunOptions {
        state: folder.clone(),
        record: if typed.busy { record } else { defaults.record },
        listen: typed.listen.unwrap_or(defaults.listen),
        log_level: typed.log_level.unwrap_or(defaults.log_level),
        sources: Sources {
            upstreams: vec![DEMO.to_owned(); if typed.busy { BUSY_BOXES } else { 1 }],
            ..defaults.sources
        },
        is_busy: typed.busy,
        ..defaults
    });
    if let Some(folder) = folder {
        let _ = std::fs::remove_dir_all(folder);
    }
    served
}

/// The configuration of a run: what was typed, otherwise the defaults.
fn run_options(typed: Serve) -> RunOptions {
    let defaults = RunOptions::default();
    let server = defaults.server;
    let limits = http::RequestLimits {
        body_size_max: typed.body_size_max.unwrap_or(server.limits.body_size_max),
        ..server.limits
    };
    let connections_max = typed.connections_max.unwrap_or(server.connections_max);
    let calls = defaults.calls;
    let patience = defaults.patience;
    let or = |typed: Option<Duration>, default: Duration| typed.unwrap_or(default);
    RunOptions {
        listen: typed.listen.unwrap_or(defaults.listen),
        sources: Sources {
            upstreams: typed.upstream,
            upstream_key_file: typed.upstream_key_file,
            hooks: typed.hooks,
            unsafe_hooks: typed.unsafe_hooks,
            litellm: typed.litellm,
        },
        is_busy: false,
        ca_file: typed.ca_file,
        tls: typed.tls_cert.zip(typed.tls_key),
        prefix: typed.prefix.as_deref().map_or(defaults.prefix, RunOptions::path_prefix),
        api_key_file: typed.api_key_file,
        allow_anonymous: typed.allow_anonymous,
        allowed_hosts: typed.allow_host,
        allowed_origins: typed.allow_origin,
        trusted_proxies: typed.trusted_proxy,
        server: server::ServerLimits {
            connections_max,
            connections_per_address_max: typed
                .connections_per_address_max
                .unwrap_or_else(|| server::ServerLimits::per_address_of(connections_max)),
            head_timeout: or(typed.head_timeout, server.head_timeout),
            body_timeout: or(typed.body_timeout, server.body_timeout),
            body_total_timeout: or(typed.body_total_timeout, server.body_total_timeout),
            write_timeout: or(typed.write_timeout, server.write_timeout),
            keep_alive: or(typed.keep_alive, server.keep_alive),
            drain: or(typed.drain, server.drain),
            limits,
        },
        calls: transport::CallLimits {
            connect_timeout: or(typed.connect_timeout, calls.connect_timeout),
            first_byte_timeout: or(typed.first_byte_timeout, calls.first_byte_timeout),
            idle_timeout: or(typed.idle_timeout, calls.idle_timeout),
            hang_after: or(typed.hang_after, calls.hang_after),
            ..calls
        },
        patience: ClientPatience {
            open_after: or(typed.open_after, patience.open_after),
            ping_every: or(typed.ping_every, patience.ping_every),
            usage_every: or(typed.usage_every, patience.usage_every),
            wait_for_upstream: or(typed.wait_for_upstream, patience.wait_for_upstream),
        },
        memory_max: typed.memory_max,
        metrics_open: typed.metrics_open,
        metrics_by_client: typed.metrics_by_client,
        state: typed.state,
        record: RecordOptions {
            mode: typed.record.unwrap_or(defaults.record.mode),
            size_max: typed.record_size.unwrap_or(defaults.record.size_max),
            keeps_images: typed.record_images,
        },
        log_level: typed.log_level.unwrap_or(defaults.log_level),
        log_format: typed.log_format.unwrap_or(defaults.log_format),
    }
}

#[cfg(test)]
mod tests {
    use argh::FromArgs as _;

    use super::*;

    fn options(arguments: &[&str]) -> RunOptions {
        run_options(Serve::from_args(&["serve"], arguments).unwrap())
    }

    #[test]
    fn without_options_everything_is_the_default() {
        assert_eq!(format!("{:?}", options(&[])), format!("{:?}", RunOptions::default()));
    }

    #[test]
    fn the_options_of_the_recorder_belong_together() {
        let options = options(&["--record", "errors", "--record-size", "17M", "--record-images"]);
        let record = RecordOptions { mode: RecordMode::Errors, size_max: 17 << 20, keeps_images: true };
        assert_eq!(options.record, record);
    }

    #[test]
    fn one_address_gets_a_quarter_of_the_connections() {
        for (all, per_address) in [("1024", 256), ("100", 25), ("3", 1)] {
            let options = options(&["--connections-max", all]);
            assert_eq!(options.server.connections_per_address_max, per_address);
        }
    }

    #[test]
    fn every_option_reaches_the_limit_that_it_is_named_after() {
        let options = options(&[
            "--body-size-max",
            "101",
            "--connections-max",
            "102",
            "--head-timeout",
            "103",
            "--body-timeout",
            "104",
            "--write-timeout",
            "105",
            "--keep-alive",
            "106",
            "--drain",
            "107",
            "--connect-timeout",
            "108",
            "--first-byte-timeout",
            "109",
            "--idle-timeout",
            "110",
            "--open-after",
            "0",
            "--ping-every",
            "112",
            "--usage-every",
            "113",
            "--connections-per-address-max",
            "114",
            "--body-total-timeout",
            "115",
            "--prefix",
            "llm/",
            "--metrics-open",
            "--metrics-by-client",
            "--log-format",
            "json",
            "--log-level",
            "debug",
            "--listen",
            "[::1]:1",
            "--tls-cert",
            "a.pem",
            "--tls-key",
            "a.key",
            "--state",
            "/s",
        ]);
        assert_eq!(options.tls, Some(("a.pem".into(), "a.key".into())));
        assert_eq!(options.state, Some("/s".into()));
        let seconds = Duration::from_secs;
        let server = options.server;
        assert_eq!((server.limits.body_size_max, server.connections_max), (101, 102));
        assert_eq!((server.connections_per_address_max, server.body_total_timeout), (114, seconds(115)));
        assert_eq!((server.head_timeout, server.body_timeout), (seconds(103), seconds(104)));
        assert_eq!((server.write_timeout, server.keep_alive), (seconds(105), seconds(106)));
        assert_eq!((server.drain, options.calls.connect_timeout), (seconds(107), seconds(108)));
        assert_eq!(options.calls.first_byte_timeout, seconds(109));
        assert_eq!(options.calls.idle_timeout, seconds(110));
        assert_eq!(options.log_format, crate::logger::LogFormat::Json);
        assert!(options.metrics_open && options.metrics_by_client);
        let patience = options.patience;
        assert_eq!((patience.open_after, patience.ping_every), (seconds(0), seconds(112)));
        assert_eq!((patience.usage_every, options.prefix.as_str()), (seconds(113), "/llm"));
        assert_eq!((options.log_level, options.listen.as_str()), (log::LevelFilter::Debug, "[::1]:1"));
    }
}
