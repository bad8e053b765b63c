//! The state folder itself: one process at a time, and corrupt files that are kept under another name.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::schema::FILE;

/// The name of the file that the process holds locked.
const LOCK: &str = "lock";

/// The right to write, until it is dropped or the process ends.
#[derive(Debug)]
pub(super) struct FolderLock(#[allow(dead_code, reason = "its lock ends with it")] File);

impl FolderLock {
    /// Makes the folder if it is missing, and locks it. `None`: another process has it.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(super) fn take(folder: &Path) -> io::Result<Option<FolderLock>> {
        // For its user alone: the rows name people and what they asked for.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let file = File::options().create(true).truncate(false).write(true).open(folder.join(LOCK))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(FolderLock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Gives the files of the database another name. Returns the name of the main one.
///
/// # Errors
/// The folder cannot be written.
pub(super) fn set_aside(folder: &Path, day: &str) -> io::Result<String> {
    // A second corrupt file of a day must not replace the first.
    let is_free = |name: &String| !folder.join(name).exists();
    let names = (1..).map(|number: u32| match number {
        1 => format!("{FILE}.corrupt-{day}"),
        _ => format!("{FILE}.corrupt-{day}-{number}"),
    });
    let name = names.take(100).find(is_free).ok_or_else(|| io::Error::other("too many corrupt files"))?;
    fs::rename(folder.join(FILE), folder.join(&name))?;
    for more in ["-wal", "-shm"] {
        let from = folder.join(format!("{FILE}{more}"));
        if from.exists() {
            fs::rename(from, folder.join(format!("{name}{more}")))?;
        }
    }
    Ok(name)
}
