//! The state folder that `usage`, `requests`, `show` and `replay` read, and the time that the first two look back.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::output::Failed;
use crate::service;
use crate::state::{MICRO, Reader};

/// The folder of the systemd service.
const SERVICE_FOLDER: &str = "/var/lib/sparkgap";

/// Opens the folder of `--state`, otherwise that of the service.
pub(super) fn open(folder: Option<PathBuf>) -> Result<Reader, Failed> {
    let folder = folder.or_else(service::state_folder).unwrap_or_else(|| SERVICE_FOLDER.into());
    Reader::open(&folder)
}

/// The moment that lies this long ago, since 1970.
pub(super) fn ago(time: Duration) -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(time)
}

/// A cost as a decimal number.
pub(super) fn money(cost: u64) -> String {
    format!("{}.{:06}", cost / MICRO, cost % MICRO)
}
