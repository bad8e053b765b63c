//! `import`: another program's configuration as Lua, with a report on each of its keys.

use std::fmt::Write as _;

use super::arguments::ImportFile;
use super::output::{Failed, note, print_exactly, print_json};
use crate::app::read_litellm;
use crate::json::Value;
use crate::litellm::{Import, KeyVerdict};

/// `sparkgap import FILE`: the Lua to stdout or to a file, the report to stderr or, with the Lua, as JSON.
pub(super) fn run(options: &ImportFile) -> Result<(), Failed> {
    let import = read_litellm(&options.file, false)?;
    if let Some(output) = &options.output {
        if output.exists() {
            return Err(format!(
                "{} is there already; name another file, or remove it first",
                output.display()
            ));
        }
        std::fs::write(output, &import.lua).map_err(|error| format!("{}: {error}", output.display()))?;
    }
    if options.json {
        print_json(&as_json(&import));
        return Ok(());
    }
    let mut report = String::new();
    for line in &import.summary {
        let _ = writeln!(report, "{line}");
    }
    if options.verbose {
        report.push('\n');
        for line in &import.report {
            let _ = writeln!(report, "{line}");
        }
    } else {
        let _ = writeln!(report, "--verbose shows a line for each of {} keys", import.report.len());
    }
    for (name, _) in &import.environment {
        let _ = writeln!(report, "set the environment variable {name}: its value stays in the YAML");
    }
    note(&report);
    if options.output.is_none() {
        print_exactly(&import.lua);
    }
    Ok(())
}

fn as_json(import: &Import) -> Value<'_> {
    let name = |verdict: KeyVerdict| match verdict {
        KeyVerdict::Mapped => "mapped",
        KeyVerdict::BuiltIn => "built-in",
        KeyVerdict::Ignored => "ignored",
        KeyVerdict::Unsupported => "unsupported",
    };
    let lines = import.report.iter().map(|line| {
        Value::object([
            ("key", line.key.as_str().into()),
            ("verdict", name(line.verdict).into()),
            ("note", line.note.as_str().into()),
        ])
    });
    let summary = import.summary.iter().map(|line| Value::from(line.as_str()));
    let environment = import.environment.iter().map(|(name, _)| Value::from(name.as_str()));
    Value::object([
        ("lua", import.lua.as_str().into()),
        ("summary", summary.collect::<Vec<_>>().into()),
        ("report", lines.collect::<Vec<_>>().into()),
        ("environment", environment.collect::<Vec<_>>().into()),
    ])
}
