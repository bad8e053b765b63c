//! `hook`: runs all hooks on a saved request and on samples, and shows the results.

use std::fmt::Write as _;
use std::time::Instant;

use super::arguments::HookRun;
use super::hook_samples::{run_on_query, run_on_samples};
use super::output::{Failed, print};
use crate::app::Sources;
use crate::fleet::Gateway;
use crate::hooks;
use crate::json::add_changes;
use crate::logger;
use crate::proxy::{Preview, preview, preview_with_request};
use crate::transport;

/// The request that is used without `--request`.
const REQUEST: &str = r#"{"model":"claude-sonnet-5","max_tokens":1024,"stream":true,"system":"You are a coding agent.",
"tools":[{"name":"Read","description":"Reads a file","input_schema":{"type":"object","properties":{"file_path":{"type":"string"}}}}],
"messages":[{"role":"user","content":"Hello"}]}"#;

/// `sparkgap hook FILE --request R`.
pub(super) fn run(options: &HookRun) -> Result<(), Failed> {
    let request = match &options.request {
        Some(file) => std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?,
        None => REQUEST.as_bytes().to_vec(),
    };
    let headers = options.header.iter().map(|header| match header.split_once(':') {
        Some((name, value)) => Ok((name.trim().to_string(), value.trim().to_string())),
        None => Err(format!("--header {header}: expected NAME: VALUE")),
    });
    let headers = headers.collect::<Result<Vec<_>, Failed>>()?;
    // The purpose of this command is to show the log lines of hooks, and the reasons why they fail.
    logger::start(log::LevelFilter::Info, logger::LogFormat::Text);
    let gateway_of = |hooks: &[std::path::PathBuf], urls: &[String]| {
        let sources = Sources { upstreams: urls.to_vec(), hooks: hooks.to_vec(), ..Sources::default() };
        Gateway::new(sources.load()?, &transport::CallLimits::default())
    };
    let file = std::slice::from_ref(&options.file);
    let nowhere = [NOWHERE.to_string()];
    // Only a file without upstreams of its own needs an upstream from elsewhere.
    let with = match options.upstream.as_slice() {
        [] => gateway_of(file, &[]).or_else(|_| gateway_of(file, &nowhere))?,
        urls => gateway_of(file, urls)?,
    };
    let began = Instant::now();
    let (after, shown) = preview_with_request(&with, &request, &headers);
    let took = began.elapsed();
    let mut text = String::new();
    match &after {
        Preview::Sent { upstream, model, body } => {
            let _ = writeln!(text, "goes to   {upstream}, model {model}");
            // The same request without any hook: the hooks' result is compared with this body.
            match preview(&gateway_of(&[], &nowhere)?, &request, &headers) {
                Preview::Sent { body: before, .. } => add_changes("", &before, body, &mut text),
                other => {
                    text.push_str("without the hooks: ");
                    say_end(&other, &mut text);
                }
            }
        }
        other => say_end(other, &mut text),
    }
    let query = match &after {
        Preview::Searched(query) => query,
        _ => QUERY,
    };
    if let Some(mut shown) = shown {
        let first = with.upstreams().first().map(|served| served.name()).unwrap_or_default();
        let upstream = shown.upstream.clone().unwrap_or_else(|| first.to_owned());
        run_on_samples(with.hooks(), options, &mut shown, &upstream, &mut text)?;
        run_on_query(with.hooks(), query, &mut shown, &mut text);
        text.push('\n');
    }
    let failures: u64 = hooks::Hook::ALL.iter().map(|hook| with.hooks().failures(*hook)).sum();
    let _ = writeln!(
        text,
        "took      {took:?} with parsing and translation; {} KiB of Lua memory; {failures} failed hooks",
        with.hooks().memory_bytes() / 1024
    );
    // The hooks' own lines came before.
    logger::flush();
    print(&text);
    match after {
        _ if failures > 0 => Err("a hook failed; see above".into()),
        // A script that runs this command must notice a request that would not be served, or that was saved in part.
        Preview::Refused(_) => Err("the request would be refused; see above".into()),
        Preview::Sent { .. } | Preview::Answered(_) | Preview::Searched(_) => Ok(()),
    }
}

/// Adds the line of a request that goes to no upstream.
fn say_end(preview: &Preview, text: &mut String) {
    let _ = match preview {
        Preview::Sent { upstream, model, .. } => writeln!(text, "goes to   {upstream}, model {model}"),
        Preview::Refused(error) => writeln!(text, "refused   {error}"),
        Preview::Answered(message) => writeln!(text, "answered  {}", message.to_json()),
        Preview::Searched(query) => writeln!(text, "searches  {query:?}; no model is asked"),
    };
}

/// The query of `on_search` without a request that is a search.
const QUERY: &str = "a sample query";

/// The address of a placeholder for an upstream; nothing is ever sent there.
const NOWHERE: &str = "http://127.0.0.1:9/v1";
