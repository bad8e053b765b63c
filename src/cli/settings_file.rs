//! `claude --settings` and `claude --settings --undo`: the environment in Claude Code's own settings file, for editors and
//! whoever types `claude`.
//!
//! | file beside `settings.json` | content |
//! |---|---|
//! | `settings.json.before-sparkgap` | the file as it was, byte for byte; empty if there was none |
//! | `settings.json.by-sparkgap` | the file as sparkgap has written it |
//!
//! The difference of the two is what sparkgap changed. Undoing takes back each of these changes that nobody has changed
//! again since, and keeps everything else that came later. A file is replaced by a rename, so that a crash leaves the
//! old or the new one, and neither a link nor anything else that is not a plain file is read or replaced.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::output::Failed;
use crate::json::{self, Object, Value};

/// The largest settings file, in bytes. A larger one is not read: Claude Code itself refuses it.
pub(super) const FILE_SIZE_MAX: u64 = 8 * 1024 * 1024;

/// The mode of a file that may hold a key.
const PRIVATE: u32 = 0o600;

/// The settings file of a person, and what is kept beside it.
pub(super) struct SettingsFile {
    folder: PathBuf,
    file: PathBuf,
    before: PathBuf,
    by: PathBuf,
}

/// A file as it was read.
struct Found {
    bytes: Vec<u8>,
    mode: u32,
}

impl SettingsFile {
    /// The settings file in Claude Code's folder.
    pub(super) fn of(folder: &Path) -> Self {
        SettingsFile {
            folder: folder.to_path_buf(),
            file: folder.join("settings.json"),
            before: folder.join("settings.json.before-sparkgap"),
            by: folder.join("settings.json.by-sparkgap"),
        }
    }

    /// The path of the file itself.
    pub(super) fn path(&self) -> &Path {
        &self.file
    }

    /// Changes the settings by `change`, which gets those of the person, and writes them. Changes of an earlier time are
    /// taken back first.
    pub(super) fn change(
        &self,
        change: impl FnOnce(Value<'static>) -> Result<Value<'static>, Failed>,
    ) -> Result<(), Failed> {
        self.check_folder()?;
        let found = self.read(&self.file)?;
        // The settings of the person, and the file that keeps them where it must be written.
        let (base, kept) = match (self.read(&self.before)?, self.read(&self.by)?) {
            (Some(before), Some(by)) => match self.changed_since(found.as_ref(), &before, &by)? {
                Some(base) => {
                    let kept = Found { bytes: text(&base), mode: before.mode };
                    (base, Some(kept))
                }
                None => (self.parse(&self.before, &before)?, None),
            },
            (Some(before), None) if found.as_ref().is_some_and(|found| found.bytes != before.bytes) => {
                return Err(format!(
                    "{} is missing, so nobody knows what sparkgap has changed: delete {} if you do not need it, or copy it back",
                    self.by.display(),
                    self.before.display()
                ));
            }
            (None, Some(by)) if found.as_ref().is_some_and(|found| found.bytes == by.bytes) => {
                return Err(format!(
                    "{} is missing, so nobody knows your own settings: copy it back, or delete {} and {} to begin anew",
                    self.before.display(),
                    self.file.display(),
                    self.by.display()
                ));
            }
            _ => {
                let base = found.as_ref().map(|found| self.parse(&self.file, found)).transpose()?;
                let kept = found.unwrap_or_else(|| Found { bytes: Vec::new(), mode: PRIVATE });
                (base.unwrap_or_default(), Some(kept))
            }
        };
        let changed = change(base.into())?;
        let changed = format!("{}\n", changed.to_pretty_json()).into_bytes();
        if changed.len() as u64 > FILE_SIZE_MAX {
            return Err(too_large(&self.file));
        }
        if let Some(kept) = kept {
            self.replace(&self.before, &kept.bytes, kept.mode)?;
        }
        self.replace(&self.by, &changed, PRIVATE)?;
        self.replace(&self.file, &changed, PRIVATE)
    }

    /// Takes back what [`SettingsFile::change`] has changed.
    pub(super) fn undo(&self) -> Result<(), Failed> {
        self.check_folder()?;
        let (Some(before), Some(by)) = (self.read(&self.before)?, self.read(&self.by)?) else {
            return Err(format!(
                "there is nothing to undo: sparkgap has left no {} and no {}",
                self.before.display(),
                self.by.display()
            ));
        };
        let found = self.read(&self.file)?;
        match self.changed_since(found.as_ref(), &before, &by)? {
            Some(base) => {
                self.replace(&self.file, &text(&base), before.mode)?;
                self.remove(&self.before)?;
            }
            None if before.bytes.is_empty() => {
                self.remove(&self.file)?;
                self.remove(&self.before)?;
            }
            None => fs::rename(&self.before, &self.file).map_err(|error| failed(&self.file, &error))?,
        }
        self.remove(&self.by)
    }

    /// The settings of the person alone, if they differ from those before.
    fn changed_since(
        &self,
        found: Option<&Found>,
        before: &Found,
        by: &Found,
    ) -> Result<Option<Object<'static>>, Failed> {
        // Bytes are compared first: of a key that stands twice in a file, only one value is a setting.
        let Some(found) = found.filter(|found| found.bytes != by.bytes) else { return Ok(None) };
        let before = self.parse(&self.before, before)?;
        let by = self.parse(&self.by, by)?;
        let base = undone(self.parse(&self.file, found)?, &by, &before);
        Ok((!is_same(&base, &before)).then_some(base))
    }

    /// Makes the folder if it is missing, and refuses a link in its place.
    fn check_folder(&self) -> Result<(), Failed> {
        match fs::symlink_metadata(&self.folder) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => Err(not_plain(&self.folder, "a folder")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
                made.map_err(|error| failed(&self.folder, &error))
            }
            Err(error) => Err(failed(&self.folder, &error)),
        }
    }

    /// Reads a file. `None`: it is missing.
    fn read(&self, path: &Path) -> Result<Option<Found>, Failed> {
        match fs::symlink_metadata(path) {
            // Opening a pipe would wait for somebody who writes into it.
            Ok(found) if !found.is_file() => return Err(not_plain(path, "a file")),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            _ => {}
        }
        let no_link = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or_default();
        let file = OpenOptions::new().read(true).custom_flags(no_link).open(path);
        let file = file.map_err(|error| failed(path, &error))?;
        let mode = file.metadata().map_err(|error| failed(path, &error))?.permissions().mode() & 0o777;
        let mut bytes = Vec::new();
        file.take(FILE_SIZE_MAX + 1).read_to_end(&mut bytes).map_err(|error| failed(path, &error))?;
        if bytes.len() as u64 > FILE_SIZE_MAX {
            return Err(too_large(path));
        }
        Ok(Some(Found { bytes, mode }))
    }

    /// The settings in a file. An empty file has none.
    fn parse(&self, path: &Path, found: &Found) -> Result<Object<'static>, Failed> {
        // Editors on Windows write a byte order mark at the beginning; Claude Code skips it.
        let bytes = found.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&found.bytes);
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Object::new());
        }
        let parsed = json::parse(&mut bytes.to_vec()).map(Value::into_owned);
        let wrong = |why: &str| {
            format!(
                "{} is not a JSON object ({why}), so Claude Code ignores it: correct it first; nothing was changed",
                path.display()
            )
        };
        match parsed {
            Ok(Value::Object(settings)) => Ok(settings),
            Ok(_) => Err(wrong("it is another value")),
            Err(error) => Err(wrong(&error.to_string())),
        }
    }

    /// Replaces a file by a new one with these bytes and this mode.
    fn replace(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failed> {
        let new = self.folder.join(".settings.json.new-sparkgap");
        let write = || {
            // One that was left by a crash. Its place is made anew, so that a link there is not followed.
            match fs::remove_file(&new) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&new)?;
            file.write_all(bytes)?;
            file.set_permissions(Permissions::from_mode(mode))?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| {
            // Only the unfinished new file is lost.
            let _ = fs::remove_file(&new);
            failed(path, &error)
        })
    }

    fn remove(&self, path: &Path) -> Result<(), Failed> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path, &error)),
            _ => Ok(()),
        }
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failed {
    format!("{}: {error}", path.display())
}

/// The error for a file that is too large, or would be.
fn too_large(path: &Path) -> Failed {
    format!(
        "{}: it has over {FILE_SIZE_MAX} bytes, or would have: make it smaller; nothing was changed",
        path.display()
    )
}

fn not_plain(path: &Path, expected: &str) -> Failed {
    format!(
        "{} is a link, or otherwise not {expected}, and is left alone: write the output of `sparkgap env --settings` where it leads, or name another folder in CLAUDE_CONFIG_DIR",
        path.display()
    )
}

fn text(settings: &Object<'static>) -> Vec<u8> {
    format!("{}\n", Value::from(settings.clone()).to_pretty_json()).into_bytes()
}

/// The current settings without the changes that lead from `before` to `by`. A setting that differs from `by` has been
/// changed by somebody else, and stays.
fn undone(mut current: Object<'static>, by: &Object<'static>, before: &Object<'static>) -> Object<'static> {
    for (key, written) in by.iter().filter(|(key, written)| before.get(key) != Some(written)) {
        let restored = match (current.get(key), written) {
            (Some(value), _) if value == written => before.get(key).cloned(),
            (Some(Value::Object(value)), Value::Object(written)) => {
                let inner = before.get(key).and_then(Value::as_object).cloned().unwrap_or_default();
                let left = undone(value.clone(), written, &inner);
                if left.is_empty() { before.get(key).cloned() } else { Some(left.into()) }
            }
            _ => continue,
        };
        match restored {
            Some(value) => current.set(key.to_string(), value),
            None => _ = current.remove(key),
        }
    }
    current
}

/// True if two settings have the same entries, in whatever order.
fn is_same(a: &Object<'static>, b: &Object<'static>) -> bool {
    let is_in = |(key, value): (&str, &Value<'static>)| match (value, b.get(key)) {
        (Value::Object(value), Some(Value::Object(other))) => is_same(value, other),
        (value, other) => Some(value) == other,
    };
    a.len() == b.len() && a.iter().all(is_in)
}
