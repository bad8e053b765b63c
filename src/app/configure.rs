//! Builds a checked configuration from its sources: upstreams of the command line, Lua files, and a LiteLLM file. Does
//! not use the network.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::hooks::{self, Hooks, Loaded};
use crate::litellm::{self, Import, ImportContext, ImportError};
use crate::{config, service};

/// The value of `--upstream` that stands for the built-in demo upstream.
pub const DEMO: &str = "demo";

/// The places that upstreams, aliases and hooks come from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Base URLs of upstreams, the default one first. [`serve`](super::serve) takes [`DEMO`] as well.
    pub upstreams: Vec<String>,
    /// A file with the key for these upstreams; if `None`, the key is read from the variable `SPARKGAP_UPSTREAM_KEY`,
    /// if that is set.
    pub upstream_key_file: Option<PathBuf>,
    /// Lua files, and folders of them.
    pub hooks: Vec<PathBuf>,
    /// True if hooks may use all of Lua's standard library.
    pub unsafe_hooks: bool,
    /// A LiteLLM configuration to run unchanged.
    pub litellm: Option<PathBuf>,
}

impl Sources {
    /// True if the sources name an upstream, or a file that may name one.
    pub fn name_upstreams(&self) -> bool {
        !self.upstreams.is_empty() || !self.hooks.is_empty() || self.litellm.is_some()
    }

    /// Reads and checks all sources.
    ///
    /// # Errors
    /// All mistakes, as text for the owner.
    pub fn load(&self) -> Result<Loaded, String> {
        self.load_with(self.upstreams()?)
    }

    /// Reads and checks all sources. Also returns the summary of the LiteLLM file, which is empty without one.
    ///
    /// # Errors
    /// All mistakes, as text for the owner.
    pub fn load_with_summary(&self) -> Result<(Loaded, Vec<String>), String> {
        let (options, import) = self.load_options()?;
        let loaded = load(&self.hooks, self.upstreams()?, options)?;
        Ok((loaded, import.map_or_else(Vec::new, |import| import.summary)))
    }

    /// Reads and checks the files, with `upstreams` instead of those of the command line.
    ///
    /// # Errors
    /// All mistakes, as text for the owner.
    pub fn load_with(&self, upstreams: Vec<config::UpstreamConfig>) -> Result<Loaded, String> {
        load(&self.hooks, upstreams, self.load_options()?.0)
    }

    /// The options for loading the Lua files, with the Lua of the LiteLLM file before them, and the rest of that file's
    /// translation.
    ///
    /// # Errors
    /// Those of [`read_litellm`].
    pub(super) fn load_options(&self) -> Result<(hooks::LoadOptions, Option<Import>), String> {
        let mut options =
            hooks::LoadOptions { unsafe_hooks: self.unsafe_hooks, ..hooks::LoadOptions::default() };
        let Some(file) = &self.litellm else { return Ok((options, None)) };
        let mut import = read_litellm(file, true)?;
        options.texts = vec![(file.display().to_string(), std::mem::take(&mut import.lua))];
        options.environment = Arc::new(std::mem::take(&mut import.environment).into_iter().collect());
        Ok((options, Some(import)))
    }

    /// The upstreams of the command line, each with their key. The first is called `default`.
    fn upstreams(&self) -> Result<Vec<config::UpstreamConfig>, String> {
        named_upstreams(&self.upstreams, self.upstream_key_file.as_deref())
    }
}

/// Loads Lua files; the error lists every mistake in them.
pub(super) fn load(
    hooks: &[PathBuf],
    upstreams: Vec<config::UpstreamConfig>,
    options: hooks::LoadOptions,
) -> Result<Loaded, String> {
    Hooks::load(hooks, upstreams, options).map_err(|error| {
        let mut text = String::from("invalid configuration:");
        for mistake in &error.mistakes {
            let _ = write!(text, "\n  {mistake}");
        }
        text
    })
}

/// The key for named upstreams: from the file, otherwise from the environment or the service manager.
pub(super) fn upstream_key(file: Option<&Path>) -> Result<Option<config::Secret>, String> {
    let key = match file {
        Some(file) => {
            let unread = |error| format!("--upstream-key-file {}: {error}", file.display());
            Some(std::fs::read_to_string(file).map_err(unread)?.trim_end().to_string())
        }
        None => service::variable("SPARKGAP_UPSTREAM_KEY"),
    };
    Ok(key.filter(|key| !key.is_empty()).map(config::Secret::new))
}

/// The upstreams at these addresses, each with the key for named upstreams. The first is called `default`.
pub(super) fn named_upstreams(
    urls: &[String],
    key_file: Option<&Path>,
) -> Result<Vec<config::UpstreamConfig>, String> {
    upstreams_with(urls, upstream_key(key_file)?.as_ref())
}

/// The upstreams at addresses that no option names: servers that a search found on local ports. They get no key, since
/// any program may listen there.
///
/// # Errors
/// An address is not a valid URL.
pub fn found_upstreams(urls: &[String]) -> Result<Vec<config::UpstreamConfig>, String> {
    upstreams_with(urls, None)
}

fn upstreams_with(
    urls: &[String],
    key: Option<&config::Secret>,
) -> Result<Vec<config::UpstreamConfig>, String> {
    let upstream = |(i, url): (usize, &String)| {
        let url = config::base_url(url).map_err(|why| format!("--upstream: {why}"))?;
        let name = if i == 0 { "default".to_string() } else { format!("upstream{}", i + 1) };
        Ok(config::UpstreamConfig { api_key: key.cloned(), ..config::UpstreamConfig::new(name, url) })
    };
    urls.iter().enumerate().map(upstream).collect()
}

/// Reads and translates a LiteLLM configuration, with the files that it includes. With `is_run` the file is run now, see
/// [`ImportContext`].
///
/// # Errors
/// The file cannot be read, or is not a configuration that can be translated; the text names the file.
pub fn read_litellm(file: &Path, is_run: bool) -> Result<Import, String> {
    let path = file.display().to_string();
    let yaml = read_limited(file).map_err(|error| format!("{path}: {error}"))?;
    let context = ImportContext { variable: &service::variable, path: &path, read: &read_included, is_run };
    let named = |error: ImportError| match error.file {
        Some(_) => error.to_string(),
        None => format!("{path}: {error}"),
    };
    // Only LiteLLM's files are run as they are; a file to convert may be another program's.
    let read = if is_run { litellm::import } else { litellm::import_any };
    read(&yaml, context).map_err(named)
}

/// Reads a file of at most [`litellm::SIZE_MAX`] bytes. It may be a pipe; of one without an end no more is read.
fn read_limited(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(file)?.take(litellm::SIZE_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > litellm::SIZE_MAX {
        let limit = litellm::SIZE_MAX;
        return Err(io::Error::other(format!("more than {limit} bytes; is it a configuration?")));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

/// Reads a file that a LiteLLM configuration includes.
fn read_included(path: &str) -> Result<String, String> {
    match std::fs::metadata(path) {
        // A pipe may never end.
        Ok(found) if !found.is_file() => Err("not a file".to_owned()),
        Ok(found) if found.len() > litellm::SIZE_MAX as u64 => {
            Err(format!("larger than {} bytes", litellm::SIZE_MAX))
        }
        Ok(_) => std::fs::read_to_string(path).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_an_end_is_read_to_the_limit_only() {
        let error = read_litellm(Path::new("/dev/zero"), false).unwrap_err();
        assert!(error.starts_with("/dev/zero: more than 1048576 bytes"), "{error}");
        assert!(read_litellm(Path::new("no/such.yaml"), false).unwrap_err().contains("No such file"));
    }

    #[test]
    fn a_key_file_loses_its_line_end() {
        let file = std::env::temp_dir().join(format!("sparkgap-key-{}", std::process::id()));
        std::fs::write(&file, "sk-1\n").unwrap();
        let named = named_upstreams(&["http://127.0.0.1:1".to_string()], Some(&file)).unwrap();
        assert_eq!(named[0].api_key, Some(config::Secret::new("sk-1")));
        std::fs::remove_file(&file).unwrap();
        let failed = named_upstreams(&[], Some(&file)).unwrap_err();
        assert!(failed.starts_with("--upstream-key-file "), "{failed}");
    }

    #[test]
    fn the_first_upstream_is_the_default() {
        let urls = ["http://127.0.0.1:1/v1".to_string(), "http://127.0.0.1:2".to_string()];
        let named = named_upstreams(&urls, None).unwrap();
        let names: Vec<(&str, &str)> = named.iter().map(|u| (u.name.as_str(), u.url.as_str())).collect();
        assert_eq!(names, [("default", "http://127.0.0.1:1/v1"), ("upstream2", "http://127.0.0.1:2/v1")]);
        assert!(named_upstreams(&["127.0.0.1:1".to_string()], None).is_err());
    }
}
