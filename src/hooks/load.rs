//! Loads the owner's files into a checked configuration and the hooks that they define.
//!
//! Every mistake that one run can find is reported, each with its file, its line if that is known, and the expected
//! form.

mod connection;
mod file;
mod limits;
mod never_to;
mod search;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlua::Value as LuaValue;

use super::kind::{Defined, Hook};
use super::options::LoadOptions;
use super::outcome::message_of;
use super::source::Source;
use super::table::{Mistake, Mistakes, describe};
use super::vm::Vm;
use crate::config::{ClientLimits, Config, SearchConfig, UpstreamConfig};
use crate::json::Value;
use crate::policy::NeverTo;
use crate::route::Alias;
pub(super) use file::EVENT_TYPES;
#[cfg(test)]
pub(super) use file::{FILE_KEYS, UPSTREAM_KEYS};
use file::{FileAlias, FileTable, read_table};

/// The first words of a file that is only for the editor's language server, such as `types.lua`. It may lie in the
/// folder of the hooks.
const TYPES_MARK: &str = "---@meta";

/// The size limit of one file, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The reason why a set of files was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// The mistakes, at least one.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.mistakes.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadError {}

impl LoadError {
    fn one(file: &str, line: Option<u32>, message: impl Into<String>) -> Self {
        LoadError { mistakes: vec![Mistake { file: file.to_owned(), line, message: message.into() }] }
    }
}

/// The name of the embedded default.
pub(super) const DEFAULT_FILE: &str = "default.lua (built in)";

/// Loads `sources` (files or folders; none: the embedded default) beside the upstreams of the command line.
pub(super) fn load(
    paths: &[PathBuf],
    upstreams: Vec<UpstreamConfig>,
    options: LoadOptions,
) -> Result<(Blueprint, Vm, Config), LoadError> {
    let sources = read_sources(paths, &options.texts)?;
    let mut vm = Vm::new(&options).map_err(|error| LoadError::one("the Lua VM", None, error.to_string()))?;
    let mut mistakes = Vec::new();
    let mut files = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let (file, mut found) = read_file(&vm, source, index);
        files.push((source, file));
        mistakes.append(&mut found);
    }
    let config = assemble(upstreams, &mut files, &mut mistakes);
    if !mistakes.is_empty() {
        return Err(LoadError { mistakes });
    }
    let (defined, functions): (Vec<_>, Vec<_>) = files.into_iter().flat_map(|(_, file)| file.defined).unzip();
    vm.set_functions(functions);
    let upstreams = config.upstreams.iter().map(|upstream| upstream.name.clone()).collect();
    let blueprint = Blueprint { config: config_for_lua(&config), upstreams, options, sources, defined };
    blueprint.run_on_load(&vm)?;
    Ok((blueprint, vm, config))
}

/// Everything that is needed to make further VMs like the first one.
pub(super) struct Blueprint {
    pub(super) sources: Vec<Source>,
    pub(super) options: LoadOptions,
    pub(super) defined: Vec<Defined>,
    /// The names of the upstreams.
    pub(super) upstreams: Vec<String>,
    /// The argument of `on_load`.
    config: Value<'static>,
}

impl Blueprint {
    /// Makes another VM. The files were read and checked before, so a failure here comes from `on_load`, or from a file
    /// that does not do the same each time.
    pub(super) fn build(&self) -> Result<Vm, LoadError> {
        let mut vm =
            Vm::new(&self.options).map_err(|error| LoadError::one("the Lua VM", None, error.to_string()))?;
        let mut functions = Vec::new();
        for (index, source) in self.sources.iter().enumerate() {
            let (file, mistakes) = read_file(&vm, source, index);
            if !mistakes.is_empty() {
                return Err(LoadError { mistakes });
            }
            let expected = self.defined.iter().filter(|defined| defined.file == index);
            if !file.defined.iter().map(|(defined, _)| defined.hook).eq(expected.map(|defined| defined.hook))
            {
                return Err(LoadError::one(
                    &source.file,
                    None,
                    "defines different hooks than when it was first loaded",
                ));
            }
            functions.extend(file.defined.into_iter().map(|(_, function)| function));
        }
        vm.set_functions(functions);
        self.run_on_load(&vm)?;
        Ok(vm)
    }

    fn run_on_load(&self, vm: &Vm) -> Result<(), LoadError> {
        for (index, defined) in self.defined.iter().enumerate().filter(|(_, d)| d.hook == Hook::Load) {
            if let (Err(error), Some(source)) =
                (vm.call_on_load(index, &self.config), self.sources.get(defined.file))
            {
                let text = message_of(&error);
                let line = source.line_in(&text);
                return Err(LoadError::one(
                    &source.file,
                    line,
                    format!("on_load: {}", first_line(source, &text)),
                ));
            }
        }
        Ok(())
    }
}

/// The configuration as `on_load` gets it, without keys.
fn config_for_lua(config: &Config) -> Value<'static> {
    let text = |text: &Option<String>| text.clone().map_or(Value::Null, Value::from);
    let upstreams = config.upstreams.iter().map(|upstream| {
        Value::object([
            ("name", upstream.name.clone().into()),
            ("url", upstream.url.clone().into()),
            ("model", text(&upstream.model)),
        ])
    });
    let aliases = config.aliases.iter().map(|alias| config.alias_value(alias));
    Value::object([
        ("upstreams", Value::Array(upstreams.collect())),
        ("aliases", Value::Array(aliases.collect())),
    ])
}

fn read_sources(paths: &[PathBuf], texts: &[(String, String)]) -> Result<Vec<Source>, LoadError> {
    let given = texts.iter().map(|(file, text)| Source { file: file.clone(), text: text.clone() });
    if paths.is_empty() && texts.is_empty() {
        let text = include_str!("../../hooks/default.lua").to_owned();
        return Ok(vec![Source { file: DEFAULT_FILE.to_owned(), text }]);
    }
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let mut inside = lua_files_in(path)
                .map_err(|error| LoadError::one(&path.display().to_string(), None, error.to_string()))?;
            if inside.is_empty() {
                return Err(LoadError::one(
                    &path.display().to_string(),
                    None,
                    "no *.lua file in this folder",
                ));
            }
            files.append(&mut inside);
        } else {
            files.push(path.clone());
        }
    }
    let sources = given.map(Ok).chain(files.iter().map(|path| read_source(path)));
    let sources: Result<Vec<Source>, LoadError> = sources.collect();
    Ok(sources?.into_iter().filter(|source| !source.text.starts_with(TYPES_MARK)).collect())
}

/// The `*.lua` files of a folder, in the order of their names.
fn lua_files_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "lua") && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_source(path: &Path) -> Result<Source, LoadError> {
    let file = path.display().to_string();
    let size = std::fs::metadata(path).map_err(|error| LoadError::one(&file, None, error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(LoadError::one(&file, None, format!("{size} bytes; the limit is {FILE_BYTES_MAX}")));
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Source { file, text }),
        Err(error) => Err(LoadError::one(&file, None, error.to_string())),
    }
}

/// The message of a Lua error without its traceback and without its place, which is reported on its own.
fn first_line(source: &Source, text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = ["syntax error: ", "runtime error: ", "memory error: "]
        .iter()
        .fold(line, |line, prefix| line.strip_prefix(prefix).unwrap_or(line));
    let marker = format!("{}:", source.short_name());
    match line.strip_prefix(&marker).and_then(|rest| rest.split_once(": ")) {
        Some((_, message)) => message.to_owned(),
        None => line.to_owned(),
    }
}

fn read_file(vm: &Vm, source: &Source, index: usize) -> (FileTable, Vec<Mistake>) {
    let mut mistakes = Mistakes::new(&source.file, &source.text);
    let mut file = FileTable::default();
    match vm.evaluate(source) {
        Ok(LuaValue::Table(table)) => file = read_table(&table, index, &mut mistakes),
        Ok(other) => mistakes.add_at(
            None,
            format!("expected one table to be returned (return {{ … }}), got {}", describe(&other)),
        ),
        Err(error) => {
            let text = message_of(&error);
            mistakes.add_at(source.line_in(&text), first_line(source, &text));
        }
    }
    (file, mistakes.list)
}

/// The parts of all files, each beside its file where a later check needs it.
#[derive(Default)]
struct Gathered<'s> {
    upstreams: Vec<UpstreamConfig>,
    aliases: Vec<(&'s Source, FileAlias)>,
    limits: Vec<Arc<ClientLimits>>,
    never_to: Vec<(&'s Source, NeverTo)>,
    search: Option<SearchConfig>,
}

/// Gathers the parts of all files behind the upstreams of the command line. A name that stands twice is a mistake.
fn gather<'s>(
    command_line: Vec<UpstreamConfig>,
    files: &mut [(&'s Source, FileTable)],
    mistakes: &mut Vec<Mistake>,
) -> Gathered<'s> {
    let mut all = Gathered { upstreams: command_line, ..Gathered::default() };
    // The file of each upstream; those of the command line are not among them.
    let mut owners: HashMap<String, &str> = HashMap::new();
    for (source, file) in files.iter_mut() {
        let mut found = Mistakes::new(&source.file, &source.text);
        for upstream in file.upstreams.drain(..) {
            if all.upstreams.iter().any(|other| other.name == upstream.name) {
                let place = owners.get(&upstream.name).copied().unwrap_or("the command line");
                found.add(
                    &[&upstream.name],
                    format!(
                        "upstreams.{}: an upstream of this name exists already, from {place}; give one of them another name",
                        upstream.name
                    ),
                );
            } else {
                owners.insert(upstream.name.clone(), &source.file);
                all.upstreams.push(upstream);
            }
        }
        for client in file.limits.drain(..) {
            if all.limits.iter().any(|other| other.name == client.name) {
                found.add(
                    &[&client.name],
                    format!("keys.{}: this key's limits stand in another file already", client.name),
                );
            }
            all.limits.push(Arc::new(client));
        }
        if let Some(engine) = file.search.take() {
            if all.search.is_some() {
                found.add(&["search"], "search: another file names a search engine already");
            }
            all.search = Some(engine);
        }
        mistakes.append(&mut found.list);
        all.aliases.extend(file.aliases.drain(..).map(|alias| (*source, alias)));
        all.never_to.extend(file.never_to.drain(..).map(|rules| (*source, rules)));
    }
    all
}

/// Combines the files: lists the upstreams with the default first, and finds the upstream of each alias.
fn assemble(
    command_line: Vec<UpstreamConfig>,
    files: &mut [(&Source, FileTable)],
    mistakes: &mut Vec<Mistake>,
) -> Config {
    let first_given = command_line.first().map(|upstream| upstream.name.clone());
    let Gathered { mut upstreams, aliases, limits, never_to, search } = gather(command_line, files, mistakes);
    let star = aliases
        .iter()
        .find(|(_, alias)| alias.pattern == "*")
        .and_then(|(_, a)| Some(a.members.first()?.upstream.clone()));
    let default = first_given.or(star).or_else(|| upstreams.iter().map(|u| u.name.clone()).min());
    // The sort is stable: the rest keep the order of the command line, then of the files and their names.
    upstreams.sort_by_key(|upstream| Some(&upstream.name) != default.as_ref());
    if default.is_none() {
        if mistakes.is_empty() {
            let message = "no upstream: give --upstream URL, or upstreams = { spark = { url = \"http://…\" } } in a file";
            let file = files.first().map(|(source, _)| source.file.clone()).unwrap_or_default();
            mistakes.push(Mistake { file, line: None, message: message.to_owned() });
        }
        return Config::default();
    }
    let names: Vec<&str> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    // An upstream with a mistake of its own is missing here. Its mistake was reported, so aliases of it are not.
    let complete = mistakes.is_empty();
    let aliases = aliases
        .into_iter()
        .map(|(source, alias)| {
            let named = alias.members.iter().chain(&alias.backup).map(|member| &member.upstream);
            for upstream in named.filter(|name| complete && !names.contains(&name.as_str())) {
                let mut found = Mistakes::new(&source.file, &source.text);
                let what = format!("alias {} (\"{}\"): no upstream", alias.position, alias.pattern);
                found.add(&[upstream, &alias.pattern], super::nearest::unknown(&what, upstream, &names));
                mistakes.append(&mut found.list);
            }
            let FileAlias { pattern, members, backup, model, price, .. } = alias;
            Alias { pattern, members, backup, model, price }
        })
        .collect();
    for (source, rules) in
        never_to.iter().filter(|(_, rules)| complete && !names.contains(&rules.upstream.as_str()))
    {
        let mut found = Mistakes::new(&source.file, &source.text);
        let unknown = super::nearest::unknown("never_to: no upstream", &rules.upstream, &names);
        found.add(&[&rules.upstream], unknown);
        mistakes.append(&mut found.list);
    }
    let never_to = never_to.into_iter().map(|(_, rules)| rules).collect();
    Config { upstreams, aliases, limits, never_to, search }
}
