//! The log lines of refused requests: a limited number a second for each client's network, and the number of the others.
//!
//! Whoever has no key can make requests that are refused, as many as the network carries, and must not fill the log.

use std::fmt;
use std::net::IpAddr;

use super::record::Record;
use crate::config::client_network;
use crate::logger::{self, LimitedLines};

/// The most lines a second for one client's network: enough to see what its requests are.
const LINES_MAX: u32 = 20;

/// Writes the lines of refused requests, or counts them.
#[derive(Clone, Debug)]
pub struct RefusalLog(LimitedLines<IpAddr>);

impl Default for RefusalLog {
    fn default() -> Self {
        RefusalLog(LimitedLines::new(LINES_MAX, |network, count| {
            log::info!("{count} more requests of {} were refused", name_of(network));
        }))
    }
}

impl RefusalLog {
    /// Logs the line of a refused request, or counts it if the client's network had too many.
    pub fn log(&self, record: &Record, line: fmt::Arguments<'_>) {
        if self.0.admits(client_network(record.details.caller.address), log::Level::Info) {
            logger::log_request(log::Level::Info, line, || record.to_value());
        }
    }

    /// Logs the numbers of lines that were left out, if there are any.
    pub fn report(&self) {
        self.0.report();
    }
}

/// The name of a network in the line with its number; `None` stands for the networks that share one count.
fn name_of(network: Option<IpAddr>) -> String {
    match network {
        None => "many other addresses".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(network)) => format!("{network}/64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_names() {
        let named = |text: &str| name_of(Some(client_network(text.parse().unwrap())));
        assert_eq!(named("10.0.0.1"), "10.0.0.1");
        assert_eq!(named("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!(named("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(name_of(None), "many other addresses");
    }
}
