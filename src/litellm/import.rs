//! The import itself: the text of a LiteLLM configuration -> Lua, report, keys.

use super::error::ImportError;
use super::include::{self, ReadInclude, WholeFile};
use super::lua;
use super::models::{self, Models};
use super::pools;
use super::report::{self, Line, Report};
use super::router::Routes;
use super::sources::{self, NamedAddresses, Unset, Variable};
use super::summary;
use super::verdict::KeyVerdict;
use super::yaml::{self, ParsedFile};
use crate::config::Secret;

/// A LiteLLM configuration, translated.
#[derive(Clone, Debug)]
pub struct Import {
    /// A file for `--hooks`.
    pub lua: String,
    /// One line for every leaf of the YAML, in its order.
    pub report: Vec<Line>,
    /// The most important of it in about ten lines: the names, the servers, whose key goes where, and what is lost.
    pub summary: Vec<String>,
    /// The files under `include` that were read.
    pub files: Vec<String>,
    /// Values that are in the YAML and that the Lua reads with `env`: keys, and the YAML's `environment_variables`. A
    /// run of the YAML itself must put them where `env` looks; an owner who keeps the Lua sets them in the service's
    /// environment.
    pub environment: Vec<(String, Secret)>,
    /// `general_settings.master_key`: the key that clients must send.
    pub master_key: Option<MasterKey>,
    /// Addresses that the Lua reads from variables which are not set where the file is read; an owner who keeps the Lua
    /// may set them elsewhere. In a file that is run now their entries are left out.
    pub unset: Vec<Unset>,
}

impl Import {
    /// The translation of another program's file: it includes no files, names no key for clients, and leaves no address
    /// open. Its losses are added to the summary.
    pub(super) fn of_another(
        lua: String,
        report: Vec<Line>,
        mut summary: Vec<String>,
        environment: Vec<(String, Secret)>,
    ) -> Import {
        summary.extend(summary::first_losses(&report));
        Import { lua, report, summary, files: Vec::new(), environment, master_key: None, unset: Vec::new() }
    }
}

/// The source of the key that clients must send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MasterKey {
    /// The YAML holds the key itself.
    Literal(Secret),
    /// The environment variable of this name holds the key.
    Environment(String),
}

/// Everything outside of the file that its meaning depends on.
#[derive(Clone, Copy)]
pub struct ImportContext<'v> {
    /// Reads the environment: names of models, and addresses that LiteLLM would find there, are taken with their
    /// present values.
    pub variable: Variable<'v>,
    /// The path of the file, by which the files under `include` are found.
    pub path: &'v str,
    /// Reads the files under `include`.
    pub read: ReadInclude<'v>,
    /// True if the file is run now: an entry whose address is in a variable that is not set is left out. Otherwise the Lua
    /// asks for that variable.
    pub is_run: bool,
}

/// Translates the text of a LiteLLM configuration.
///
/// # Errors
/// It is not YAML, larger than 1 MiB, has no `model_list`, a file that it includes cannot be read, or none of its models
/// can be served. A mistake inside one entry only costs that entry, and the report names it.
pub fn import(yaml: &str, context: ImportContext<'_>) -> Result<Import, ImportError> {
    import_parsed(yaml::parse(yaml, None)?, yaml.len(), context)
}

/// Translates a LiteLLM configuration of `bytes` bytes that is parsed already.
pub(super) fn import_parsed(
    parsed: ParsedFile,
    bytes: usize,
    context: ImportContext<'_>,
) -> Result<Import, ImportError> {
    let whole = include::read(parsed, bytes, context.path, context.read)?;
    translate(&whole, context)
}

fn translate(whole: &WholeFile, context: ImportContext<'_>) -> Result<Import, ImportError> {
    let WholeFile { root, repeated, files } = whole;
    if root.entries().is_empty() {
        return Err(root.error("expected a LiteLLM configuration: a map with a model_list"));
    }
    let mut report = Report::default();
    report.mark(include::INCLUDE, KeyVerdict::Mapped, "read with this file, and merged as LiteLLM does");
    let sources = NamedAddresses::new(root, context.variable, context.is_run);
    let mut models = models::read(root, sources, &mut report)?;
    let routes = Routes::read(root, &mut models, &mut report);
    let master_key = read_master_key(root, &mut report);
    read_environment(root, &mut models, &mut report);
    let aliases = pools::aliases(&mut models, &routes, &mut report);
    let lua = lua::write(&models, &aliases);
    let mut lines: Vec<Line> = repeated.iter().map(report::repeated).collect();
    lines.extend(report.lines(root));
    let summary = summary::write(&models, &aliases, &lines, context.variable);
    let Models { environment, unset, .. } = models;
    let files = files.iter().skip(1).cloned().collect();
    Ok(Import { lua, report: lines, summary, files, environment, master_key, unset })
}

fn read_master_key(root: &yaml::Node, report: &mut Report) -> Option<MasterKey> {
    let key = root.get("general_settings")?.get("master_key")?.text()?;
    let path = "general_settings.master_key";
    Some(match key.strip_prefix("os.environ/") {
        Some(name) => {
            let note = format!(
                "serve --litellm lets its holders in; with the Lua, write the value of ${name} to a file and start with --api-key-file FILE"
            );
            report.mark(path, KeyVerdict::Mapped, note);
            MasterKey::Environment(name.to_owned())
        }
        None => {
            let note = "serve --litellm lets its holders in; with the Lua, write it to a file of its own and start with --api-key-file FILE";
            report.mark(path, KeyVerdict::Mapped, note);
            MasterKey::Literal(Secret::new(key))
        }
    })
}

fn read_environment(root: &yaml::Node, models: &mut Models, report: &mut Report) {
    let Some(variables) = root.get("environment_variables") else { return };
    for (name, value) in variables.entries() {
        let path = report::join("environment_variables", name);
        let Some(text) = value.text() else {
            report.mark(path, KeyVerdict::Ignored, "empty");
            continue;
        };
        if models.taken_over.contains(name) {
            // The Lua holds the address itself: LiteLLM does not read the variable of the process here either.
            report.mark(path, KeyVerdict::Mapped, "the Lua holds this address");
            continue;
        }
        let other = text.strip_prefix(sources::REFERENCE).filter(|other| models.asks_for(other));
        if let Some(other) = other {
            report.mark(path, KeyVerdict::Mapped, format!("the Lua asks for {other} itself"));
            continue;
        }
        if models.asks_for(name) {
            let note = format!("the Lua asks for it: set {name} in the service's environment");
            report.mark(path, KeyVerdict::Mapped, note);
        } else {
            report.mark(path, KeyVerdict::Ignored, "nothing in the Lua asks for it");
        }
        // A reference to another variable does not count as a value.
        if !text.starts_with("os.environ/") && !models.environment.iter().any(|(other, _)| other == name) {
            models.environment.push((name.clone(), Secret::new(text)));
        }
    }
}
