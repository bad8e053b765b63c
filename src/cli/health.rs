//! `health`: tells by its exit code whether a running sparkgap is well, for probes in images without a shell and curl.

use std::time::Duration;

use super::arguments::HealthProbe;
use super::output::{Failed, print};
use super::remote;
use crate::transport::{CallLimits, Endpoint, Page, Path, QuestionLimits};

/// The time for the whole answer. The server answers both questions at once; probes of containers wait 30 seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest answer, in bytes: counts, and a line for each upstream.
const ANSWER_SIZE_MAX: usize = 1024 * 1024;

/// `sparkgap health`: asks the server, and fails with the reason unless it answers with 200.
pub(super) fn run(options: &HealthProbe) -> Result<(), Failed> {
    remote::trust_named_authorities()?;
    let url = remote::address(options.url.as_deref());
    let server = Endpoint::new(&remote::server(&url, remote::key(None).as_deref()), &CallLimits::default())?;
    let path = if options.ready { "/ready" } else { "/health" };
    let limits = QuestionLimits { time: ANSWER_TIMEOUT, size: ANSWER_SIZE_MAX };
    let page = server.question(Path::Root(path), limits).map_err(|failure| {
        format!(
            "no sparkgap answers at {url} ({failure}).\nStart it, or say where it is: sparkgap health URL"
        )
    })?;
    let Page { status, body, .. } = page;
    match (status, options.ready) {
        (200, false) => print("healthy\n"),
        (200, true) => print("ready\n"),
        (404, _) => return Err(format!("{url} is not a sparkgap, or one that is older than {path}")),
        _ => {
            let reason = remote::message(body).map(|message| format!(": {message}"));
            return Err(format!("{url}{path} answers with status {status}{}", reason.unwrap_or_default()));
        }
    }
    Ok(())
}
