//! `import`: a LiteLLM configuration as Lua, and what became of each of its keys.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::arguments::ImportFile;
use super::{Failed, print};
use crate::json::Value;
use crate::litellm::{self, Import, ImportError, Verdict};
use crate::service;

/// `sparkgap import FILE`: the Lua to stdout or to a file, the report to stderr or, with the Lua, as JSON.
pub(super) fn run(options: &ImportFile) -> Result<(), Failed> {
    let import = read(&options.file)?;
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
        print(&as_json(&import));
        return Ok(());
    }
    let mut report = String::new();
    for line in &import.report {
        let _ = writeln!(report, "{line}");
    }
    for (name, _) in &import.environment {
        let _ = writeln!(report, "set the environment variable {name}: its value stays in the YAML");
    }
    // Nobody is there to tell if stderr cannot be written to.
    let _ = std::io::stderr().write_all(report.as_bytes());
    if options.output.is_none() {
        print(&import.lua);
    }
    Ok(())
}

/// Reads and translates a LiteLLM configuration.
pub(super) fn read(file: &Path) -> Result<Import, Failed> {
    let yaml = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    litellm::import(&yaml, &service::variable).map_err(|error| format!("{}: {error}", file.display()))
}

/// The same for a file that is run as it is: every variable that holds an address must be set.
pub(super) fn read_to_run(file: &Path) -> Result<Import, Failed> {
    let import = read(file)?;
    match import.unset.first() {
        Some(unset) => Err(format!("{}: {}", file.display(), ImportError::from(unset))),
        None => Ok(import),
    }
}

fn as_json(import: &Import) -> String {
    let name = |verdict: Verdict| match verdict {
        Verdict::Mapped => "mapped",
        Verdict::BuiltIn => "built-in",
        Verdict::Ignored => "ignored",
        Verdict::Unsupported => "unsupported",
    };
    let lines = import.report.iter().map(|line| {
        Value::object([
            ("key", line.key.as_str().into()),
            ("verdict", name(line.verdict).into()),
            ("note", line.note.as_str().into()),
        ])
    });
    let environment = import.environment.iter().map(|(name, _)| Value::from(name.as_str()));
    let whole = Value::object([
        ("lua", import.lua.as_str().into()),
        ("report", lines.collect::<Vec<_>>().into()),
        ("environment", environment.collect::<Vec<_>>().into()),
    ]);
    format!("{}\n", whole.to_json())
}
