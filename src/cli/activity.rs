//! The question of `top` and `statusline` to a running sparkgap: its `GET /activity`.

use std::time::Duration;

use super::output::Failed;
use super::remote;
use crate::json::{self, Value};
use crate::transport::{CallLimits, Endpoint, Page, Path, QuestionLimits};

/// The largest answer, in bytes: 250 requests of about 1 KB, and a line for each upstream.
const ANSWER_SIZE_MAX: usize = 1024 * 1024;

/// A sparkgap that can be asked.
pub(super) struct ActivitySource {
    url: String,
    server: Endpoint,
}

impl ActivitySource {
    /// The sparkgap at this address.
    pub(super) fn new(url: String, key: Option<&str>) -> Result<Self, Failed> {
        remote::trust_named_authorities()?;
        let server = Endpoint::new(&remote::server(&url, key), &CallLimits::default())?;
        Ok(ActivitySource { url, server })
    }

    /// Asks for the activity; `query` is empty or begins with a question mark.
    pub(super) fn ask(&self, query: &str, time: Duration) -> Result<Value<'static>, Failed> {
        let url = &self.url;
        let limits = QuestionLimits { time, size: ANSWER_SIZE_MAX };
        let page = self.server.question(Path::Root(&format!("/activity{query}")), limits);
        let Page { status, mut body, .. } = page.map_err(|failure| {
            format!("no sparkgap answers at {url} ({failure}).\nStart it, or say where it is: SPARKGAP_URL=http://box:4000")
        })?;
        match status {
            200 => {}
            401 => {
                return Err(format!(
                    "the sparkgap at {url} asks for a key: put it into the environment variable SPARKGAP_API_KEY"
                ));
            }
            404 => {
                return Err(format!("{url} is not a sparkgap, or one that is older than its `top` command"));
            }
            status => return Err(format!("the sparkgap at {url} answers with status {status}")),
        }
        let answer = json::parse(&mut body).map_err(|error| format!("{url} is not a sparkgap: {error}"))?;
        Ok(answer.into_owned())
    }
}

/// A number with a unit, in four characters or so: 950, 38k, 1.2M.
pub(super) fn short(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => format!("{}k", (number + 500) / 1_000),
        _ => format!("{}.{}M", number / 1_000_000, number % 1_000_000 / 100_000),
    }
}

/// A part in percent; 0 of nothing.
pub(super) fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let numbers = [0, 999, 1_000, 37_500, 999_499, 1_250_000].map(short);
        assert_eq!(numbers, ["0", "999", "1k", "38k", "999k", "1.2M"]);
        assert_eq!((percent(1, 3), percent(5, 0), percent(u64::MAX, 1)), (33, 0, u64::MAX));
    }
}
