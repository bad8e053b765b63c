//! The state folder itself: one process at a time, and corrupt files that are kept under another name.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// The name of the file with the tables.
pub(super) const FILE: &str = "sparkgap.db";

/// The name of the file that the process holds locked.
const LOCK: &str = "lock";

/// The mode of files: for their user alone, since rows name people and recordings hold what they said.
const FILE_MODE: u32 = 0o600;

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
        let mut options = File::options();
        let file =
            options.create(true).truncate(false).write(true).mode(FILE_MODE).open(folder.join(LOCK))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(FolderLock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Makes the database a file that only its user can read, whatever the umask says, and takes the rights of others away
/// from files that an older version has made. SQLite gives its `-wal` and `-shm` the rights of the database.
///
/// # Errors
/// The file cannot be made.
pub(super) fn close_files(folder: &Path) -> io::Result<()> {
    File::options().create(true).append(true).mode(FILE_MODE).open(folder.join(FILE))?;
    for more in ["", "-wal", "-shm"] {
        let path = folder.join(format!("{FILE}{more}"));
        let is_open = fs::metadata(&path).is_ok_and(|file| file.permissions().mode() & 0o777 != FILE_MODE);
        if is_open {
            // Some file systems have no such rights. They are no reason to go on without history.
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(FILE_MODE));
        }
    }
    Ok(())
}

/// True if other users may list the folder or enter it.
pub(super) fn is_open_to_others(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|folder| folder.permissions().mode() & 0o077 != 0)
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
