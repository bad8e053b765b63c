//! The values that go to the disk, each cut to a limit.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::shown::cut;

/// The most bytes of a name that a client chose, such as a model's or a session's.
const NAME_SIZE_MAX: usize = 256;

/// The most bytes of an error's text.
const ERROR_SIZE_MAX: usize = 1024;

/// The last second of the year 9999, the latest one whose date has four digits of a year.
const SECONDS_MAX: u64 = 253_402_300_799;

/// The most tokens of a prompt or an answer that are believed: an upstream's number must not make a sum overflow.
const TOKENS_MAX: u64 = 10_000_000_000;

/// The largest time, in milliseconds: the year 9999.
const TIME_MAX_MS: u64 = SECONDS_MAX * 1000;

/// The highest cost of a request that is counted, in [`MICRO`]s.
const COST_MAX: u64 = 1_000_000_000;

/// The parts of one unit of money in which prices and costs are counted.
pub const MICRO: u64 = 1_000_000;

/// A request that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestRow {
    /// Its id, `req_…`.
    pub id: String,
    /// When it ended, in milliseconds since 1970.
    pub ended_ms: u64,
    /// The owner of the key, otherwise the address.
    pub client: String,
    /// Claude Code's session; empty if the client named none.
    pub session: String,
    /// The model as the client named it.
    pub model: String,
    /// The name of the upstream; empty if none was chosen.
    pub upstream: String,
    /// The model at the upstream; empty if none was chosen.
    pub upstream_model: String,
    /// True if the client asked for a stream.
    pub is_streamed: bool,
    /// The HTTP status; 499 if the client left.
    pub status: u16,
    /// The stop reason; empty if there was none.
    pub stop_reason: String,
    /// The tokens of the prompt, cached ones included.
    pub prompt: u64,
    /// The tokens of the prompt that a cache served.
    pub cached: u64,
    /// The tokens of the answer.
    pub output: u64,
    /// The cost by the alias's price, in [`MICRO`]s of a unit of money.
    pub cost: u64,
    /// The lane of the queue; `None` if there is no queue.
    pub lane: Option<u8>,
    /// The milliseconds in the queue; `None` if there is no queue.
    pub queue_ms: Option<u64>,
    /// The milliseconds until the first byte of the answer.
    pub first_byte_ms: Option<u64>,
    /// The milliseconds from the head of the request to its end.
    pub total_ms: u64,
    /// The reason why it failed; empty if it did not.
    pub error: String,
    /// True if there is a recording of it. Only read, never written.
    pub is_recorded: bool,
    /// True for a request that uses no tokens of a model, such as a count: usage leaves it out. Not kept.
    pub is_unused: bool,
}

impl RequestRow {
    /// Cuts the texts and the numbers that a client or an upstream chose, so that a row has a limit.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let names = [&mut self.client, &mut self.session, &mut self.model, &mut self.upstream_model];
        names.into_iter().for_each(|name| name.truncate(cut(name, NAME_SIZE_MAX).len()));
        self.error.truncate(cut(&self.error, ERROR_SIZE_MAX).len());
        for tokens in [&mut self.prompt, &mut self.cached, &mut self.output] {
            *tokens = TOKENS_MAX.min(*tokens);
        }
        self.cost = COST_MAX.min(self.cost);
        // SQLite's numbers have a sign.
        let times = [
            Some(&mut self.ended_ms),
            Some(&mut self.total_ms),
            self.queue_ms.as_mut(),
            self.first_byte_ms.as_mut(),
        ];
        times.into_iter().flatten().for_each(|time| *time = TIME_MAX_MS.min(*time));
        self
    }

    /// The day on which it ended, by UTC.
    pub fn day(&self) -> String {
        day_of(self.ended_ms / 1000)
    }
}

/// A fact that a restart must not forget. `kind` says whose it is, and `value` is text of its owner's making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The sort of fact. All facts of a kind are saved together.
    pub kind: String,
    /// Its name within the kind.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// The moment that lies this long behind the beginning of 1970, at most the last one of the year 9999: the formatter knows
/// years of four digits, and fails at others.
pub fn moment(since_1970: Duration) -> SystemTime {
    UNIX_EPOCH + since_1970.min(Duration::from_secs(SECONDS_MAX))
}

/// The day of a moment by UTC, `YYYY-MM-DD`. UTC, since the standard library knows no time zones.
pub fn day_of(seconds: u64) -> String {
    let mut text = humantime::format_rfc3339_seconds(moment(Duration::from_secs(seconds))).to_string();
    text.truncate(10);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_utc() {
        for (seconds, day) in [
            (0, "1970-01-01"),
            (86_399, "1970-01-01"),
            (86_400, "1970-01-02"),
            (1_709_164_800, "2024-02-29"),
            (u64::MAX, "9999-12-31"),
        ] {
            assert_eq!(day_of(seconds), day);
        }
    }

    #[test]
    fn a_row_has_a_limit() {
        let long = "\u{fc}\u{fc}".repeat(100_000);
        let row =
            RequestRow { model: long.clone(), session: long.clone(), error: long, ..RequestRow::default() };
        let row = row.bounded();
        assert_eq!((row.model.len(), row.session.len(), row.error.len()), (256, 256, 1024));
        let short = RequestRow { error: "x\u{fc}".to_owned(), ..RequestRow::default() };
        assert_eq!(short.clone().bounded(), short);
    }
}
