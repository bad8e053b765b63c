//! The counts of each client with limits: requests in progress and in this minute, tokens of this day.
//!
//! Reads no clock: the time is an argument, in seconds since 1970. A day is one of UTC.

use std::collections::HashMap;

use crate::config::ClientLimits;
use crate::error::{Error, Kind, Retry};

const MINUTE_S: u64 = 60;
const DAY_S: u64 = 24 * 60 * 60;

/// The seconds after which a client should ask again if it has too many requests in progress.
const BUSY_RETRY_AFTER_S: u32 = 5;

/// The counts of all clients with limits. There are as many as the configuration has ever named.
#[derive(Debug, Default)]
pub struct LimitCounts(HashMap<String, ClientCount>);

/// The counts of one client.
#[derive(Clone, Copy, Debug, Default)]
struct ClientCount {
    in_flight: u64,
    /// When the minute of `requests` began.
    minute: u64,
    requests: u64,
    /// The day of `tokens`, in days since 1970.
    day: u64,
    tokens: u64,
    /// The most tokens that the requests in progress may still use.
    reserved: u64,
}

impl ClientCount {
    /// Begins a new minute or day where one has ended. A clock that was set back by up to a day does not give a budget
    /// back; one that was set back further was wrong before.
    fn follow(&mut self, now: u64) {
        if now.checked_sub(self.minute).is_none_or(|age| age >= MINUTE_S) {
            (self.minute, self.requests) = (now, 0);
        }
        let day = now / DAY_S;
        if day > self.day || day + 1 < self.day {
            (self.day, self.tokens) = (day, 0);
        }
    }
}

impl LimitCounts {
    /// Takes over the tokens that a client has used today, from before a restart.
    pub fn restore(&mut self, client: String, tokens: u64, now: u64) {
        let count = self.0.entry(client).or_default();
        count.follow(now);
        count.tokens = count.tokens.saturating_add(tokens);
    }

    /// Raises the tokens that a client has used today to a sum that has those of this process in it.
    pub fn raise(&mut self, client: String, tokens: u64, now: u64) {
        let count = self.0.entry(client).or_default();
        count.follow(now);
        count.tokens = count.tokens.max(tokens);
    }

    /// Begins a request. [`LimitCounts::end`] ends it.
    ///
    /// # Errors
    /// 429: the client is at one of its limits.
    pub fn begin(&mut self, limits: &ClientLimits, now: u64) -> Result<(), Error> {
        let count = self.count(limits, now);
        if let Some(most) = limits.tokens_per_day.filter(|most| count.tokens >= *most) {
            return Err(budget_spent(limits, most, now));
        }
        if let Some(most) = limits.max_in_flight.filter(|most| count.in_flight >= *most) {
            let what = format!(
                "'{}' has {most} requests in progress, which is the most for this key; wait for one of them to end",
                limits.name
            );
            return Err(limited(what, Retry::After(BUSY_RETRY_AFTER_S)));
        }
        if let Some(most) = limits.requests_per_minute.filter(|most| count.requests >= *most) {
            let left = seconds(count.minute + MINUTE_S - now);
            let what =
                format!("'{}' may send {most} requests a minute; ask again in {left} seconds", limits.name);
            return Err(limited(what, Retry::After(left)));
        }
        count.in_flight += 1;
        count.requests += 1;
        Ok(())
    }

    /// Reserves the most tokens that a request in progress may use. Where they are reserved, requests at the same time
    /// exceed the budget by the tokens of one of them at most.
    ///
    /// # Errors
    /// 429: the budget is spent, or the requests in progress may use the rest of it.
    pub fn reserve(&mut self, limits: &ClientLimits, tokens: u64, now: u64) -> Result<(), Error> {
        let count = self.count(limits, now);
        let Some(most) = limits.tokens_per_day else { return Ok(()) };
        if count.tokens >= most {
            return Err(budget_spent(limits, most, now));
        }
        if count.tokens.saturating_add(count.reserved) >= most {
            let what = format!(
                "'{}' has {most} tokens a day, and the requests in progress may use the rest; wait for one of them to end",
                limits.name
            );
            return Err(limited(what, Retry::After(BUSY_RETRY_AFTER_S)));
        }
        count.reserved = count.reserved.saturating_add(tokens);
        Ok(())
    }

    /// Takes a request in progress off the number of its minute: it was refused for something else than a limit of time.
    pub fn uncount(&mut self, limits: &ClientLimits, now: u64) {
        let count = self.count(limits, now);
        count.requests = count.requests.saturating_sub(1);
    }

    /// Ends a request that has reserved and used so many tokens.
    pub fn end(&mut self, limits: &ClientLimits, reserved: u64, used: u64, now: u64) {
        let count = self.count(limits, now);
        count.in_flight = count.in_flight.saturating_sub(1);
        count.reserved = count.reserved.saturating_sub(reserved);
        count.tokens = count.tokens.saturating_add(used);
    }

    /// The headers that tell a client how far it is from its limits, by the names that the Messages API has for them.
    pub fn headers(&mut self, limits: &ClientLimits, now: u64) -> Vec<(&'static str, String)> {
        let count = *self.count(limits, now);
        let moment = |seconds: u64| {
            // The formatter knows years of four digits.
            let at = std::time::Duration::from_secs(seconds.min(253_402_300_799));
            humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + at).to_string()
        };
        let mut headers = Vec::new();
        if let Some(most) = limits.requests_per_minute {
            headers.push(("anthropic-ratelimit-requests-limit", most.to_string()));
            let left = most.saturating_sub(count.requests);
            headers.push(("anthropic-ratelimit-requests-remaining", left.to_string()));
            headers.push(("anthropic-ratelimit-requests-reset", moment(count.minute + MINUTE_S)));
        }
        if let Some(most) = limits.tokens_per_day {
            headers.push(("anthropic-ratelimit-tokens-limit", most.to_string()));
            let left = most.saturating_sub(count.tokens).saturating_sub(count.reserved);
            headers.push(("anthropic-ratelimit-tokens-remaining", left.to_string()));
            headers.push(("anthropic-ratelimit-tokens-reset", moment((now / DAY_S + 1) * DAY_S)));
        }
        headers
    }

    fn count(&mut self, limits: &ClientLimits, now: u64) -> &mut ClientCount {
        let count = self.0.entry(limits.name.clone()).or_default();
        count.follow(now);
        count
    }
}

fn seconds(seconds: u64) -> u32 {
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

fn limited(what: String, retry: Retry) -> Error {
    Error::new(Kind::RateLimit, what).retry(retry)
}

/// The refusal of a client whose budget is spent. It is not to try again before the next day.
fn budget_spent(limits: &ClientLimits, most: u64, now: u64) -> Error {
    let left = seconds(DAY_S - now % DAY_S);
    let what = format!(
        "'{}' has used its {most} tokens of today; the next day begins at midnight UTC, in {} h {} min",
        limits.name,
        left / 3600,
        left % 3600 / 60
    );
    limited(what, Retry::NotBefore(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minute before midnight.
    const LATE: u64 = 20_000 * DAY_S - 60;

    fn limits() -> ClientLimits {
        ClientLimits { name: "anna".to_owned(), ..ClientLimits::default() }
    }

    #[test]
    fn requests_in_progress_are_counted_until_they_end() {
        let limits = ClientLimits { max_in_flight: Some(2), ..limits() };
        let mut counts = LimitCounts::default();
        assert!(counts.begin(&limits, LATE).is_ok() && counts.begin(&limits, LATE).is_ok());
        let error = counts.begin(&limits, LATE).unwrap_err();
        assert_eq!((error.kind, error.retry), (Kind::RateLimit, Retry::After(5)));
        assert!(error.message.contains("'anna' has 2 requests in progress"), "{}", error.message);
        counts.end(&limits, 0, 0, LATE);
        assert!(counts.begin(&limits, LATE).is_ok());
        let other = ClientLimits { name: "guest".to_owned(), ..limits };
        assert!(counts.begin(&other, LATE).is_ok(), "each client has its own");
    }

    #[test]
    fn a_minute_ends_after_60_seconds() {
        let limits = ClientLimits { requests_per_minute: Some(2), ..limits() };
        let mut counts = LimitCounts::default();
        assert!(counts.begin(&limits, LATE).is_ok() && counts.begin(&limits, LATE + 10).is_ok());
        for (now, left) in [(LATE + 10, 50), (LATE + 59, 1)] {
            let error = counts.begin(&limits, now).unwrap_err();
            assert_eq!(error.retry, Retry::After(left));
        }
        assert!(counts.begin(&limits, LATE + 60).is_ok());
        assert!(counts.begin(&limits, LATE - 1000).is_ok(), "the clock was set back");
    }

    #[test]
    fn a_budget_ends_at_midnight() {
        let limits = ClientLimits { tokens_per_day: Some(100), ..limits() };
        let mut counts = LimitCounts::default();
        counts.restore("anna".to_owned(), 60, LATE);
        counts.begin(&limits, LATE).unwrap();
        counts.reserve(&limits, 1000, LATE).unwrap();
        let error = counts.reserve(&limits, 1, LATE).unwrap_err();
        assert_eq!(error.retry, Retry::After(5), "{}", error.message);
        counts.end(&limits, 1000, 40, LATE + 1);
        let error = counts.begin(&limits, LATE + 2).unwrap_err();
        assert_eq!(error.retry, Retry::NotBefore(58));
        assert!(error.message.contains("100 tokens of today") && error.message.contains("0 h 0 min"));
        assert!(counts.begin(&limits, LATE + 60).is_ok());
        counts.end(&limits, 0, 100, LATE + 61);
        assert!(counts.begin(&limits, LATE).is_err(), "the clock was set back over midnight");
        assert!(counts.begin(&limits, LATE - 3 * DAY_S).is_ok(), "the clock was wrong");
    }

    #[test]
    fn another_process_adds_to_a_budget() {
        let limits = ClientLimits { tokens_per_day: Some(100), ..limits() };
        let mut counts = LimitCounts::default();
        counts.restore("anna".to_owned(), 30, LATE);
        counts.begin(&limits, LATE).unwrap();
        counts.end(&limits, 0, 20, LATE);
        // The sum may lack the last tokens of this process, and then it changes nothing.
        counts.raise("anna".to_owned(), 40, LATE);
        assert!(counts.headers(&limits, LATE).iter().any(|(_, value)| value == "50"));
        counts.raise("anna".to_owned(), 100, LATE);
        assert!(counts.begin(&limits, LATE).is_err());
        assert!(counts.begin(&limits, LATE + 60).is_ok(), "the next day has begun");
    }

    #[test]
    fn many_at_once_exceed_a_budget_by_one_request_at_most() {
        let limits = ClientLimits { tokens_per_day: Some(1000), ..limits() };
        let mut counts = LimitCounts::default();
        let admitted = (0..50).filter(|_| counts.reserve(&limits, 300, LATE).is_ok()).count();
        assert_eq!(admitted, 4);
    }

    #[test]
    fn headers_tell_what_is_left() {
        let limits = ClientLimits { requests_per_minute: Some(2), tokens_per_day: Some(100), ..limits() };
        let mut counts = LimitCounts::default();
        counts.begin(&limits, LATE).unwrap();
        counts.reserve(&limits, 30, LATE).unwrap();
        let headers = counts.headers(&limits, LATE + 1);
        let values: Vec<&str> = headers.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["2", "1", "2024-10-04T00:00:00Z", "100", "70", "2024-10-04T00:00:00Z"]);
        assert!(counts.headers(&super::ClientLimits::default(), LATE).is_empty());
    }
}
