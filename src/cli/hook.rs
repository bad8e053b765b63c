//! `hook`: runs the hooks on a saved request and shows the result.

use std::fmt::Write as _;
use std::time::Instant;

use super::arguments::HookRun;
use super::output::{Failed, print};
use crate::app::Sources;
use crate::fleet::Gateway;
use crate::hooks;
use crate::json::Value;
use crate::logger;
use crate::proxy::{Preview, preview};
use crate::transport;

/// The most characters of a value that are shown.
const SHOWN_CHARS_MAX: usize = 160;

/// `sparkgap hook FILE --request R`.
pub(super) fn run(options: &HookRun) -> Result<(), Failed> {
    let request =
        std::fs::read(&options.request).map_err(|error| format!("{}: {error}", options.request.display()))?;
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
    let after = preview(&with, &request, &headers);
    let took = began.elapsed();
    let mut text = String::new();
    match &after {
        Preview::Sent { upstream, model, body } => {
            let _ = writeln!(text, "goes to   {upstream}, model {model}");
            // The same request without any hook: the hooks' result is compared with this body.
            match preview(&gateway_of(&[], &nowhere)?, &request, &headers) {
                Preview::Sent { body: before, .. } => changes("", &before, body, &mut text),
                other => _ = writeln!(text, "without the hooks: {other:?}"),
            }
        }
        Preview::Refused(error) => _ = writeln!(text, "refused   {error}"),
        Preview::Answered(message) => _ = writeln!(text, "answered  {}", message.to_json()),
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
        Preview::Sent { .. } | Preview::Answered(_) => Ok(()),
    }
}

/// The address of a placeholder for an upstream; nothing is ever sent there.
const NOWHERE: &str = "http://127.0.0.1:9/v1";

/// One line for every place where two bodies differ.
fn changes(path: &str, before: &Value<'_>, after: &Value<'_>, text: &mut String) {
    if before == after {
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old.iter() {
                changes(&format!("{path}.{key}"), value, new.get(key).unwrap_or(&ABSENT), text);
            }
            for (key, value) in new.iter().filter(|(key, _)| old.get(key).is_none()) {
                changes(&format!("{path}.{key}"), &ABSENT, value, text);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for i in 0..old.len().max(new.len()) {
                let (old, new) = (old.get(i).unwrap_or(&ABSENT), new.get(i).unwrap_or(&ABSENT));
                changes(&format!("{path}[{}]", i + 1), old, new, text);
            }
        }
        _ => {
            for (sign, value) in [('-', before), ('+', after)] {
                if *value != ABSENT {
                    let shown: String = value.to_json().chars().take(SHOWN_CHARS_MAX).collect();
                    let _ = writeln!(text, "{sign} {}: {shown}", path.trim_start_matches('.'));
                }
            }
        }
    }
}

/// The value that represents a missing member. So a `null` that was added or removed is not shown: upstreams treat both
/// alike.
const ABSENT: Value<'static> = Value::Null;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn differences_are_named_by_their_paths() {
        let mut before = br#"{"a":1,"b":[1,{"c":"x"}],"d":true}"#.to_vec();
        let mut after = br#"{"a":1,"b":[1,{"c":"y"},3],"e":null,"f":{}}"#.to_vec();
        let mut text = String::new();
        changes("", &json::parse(&mut before).unwrap(), &json::parse(&mut after).unwrap(), &mut text);
        assert_eq!(text, "- b[2].c: \"x\"\n+ b[2].c: \"y\"\n+ b[3]: 3\n- d: true\n+ f: {}\n");
    }
}
