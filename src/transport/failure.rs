//! The failures between sparkgap and an upstream, and the error that the client gets for each.
//!
//! Pure. Only the texts for the log hold addresses.

use std::fmt;
use std::io;

use rustix::io::Errno;

use crate::error::{Error, Kind, Retry};

/// The seconds after which a client should try again. A connection error ends when the server is up again, and a
/// restart of a server on a LAN takes at least a second.
const RETRY_AFTER_S: u32 = 1;

/// The name of the limit on connecting, in [`Failure::Timeout`].
pub(super) const WHILE_CONNECTING: &str = "while connecting";

/// The name of the same limit while the host's name is looked up: a name server that is down is not the upstream's fault.
pub(super) const WHILE_LOOKING_UP: &str = "while looking up the name of its host: is the name server up?";

/// The remedy for a certificate that was made by `openssl req -x509` without further options.
const REMAKE: &str =
    "make it again with `-addext basicConstraints=critical,CA:FALSE`, and trust the new one (docs/tls.md)";

/// A failed call. The texts are for the log: they may hold the upstream's address, but never its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The client has left, so there is nobody to respond to.
    ClientGone,
    /// No connection could be made.
    Refused(String),
    /// No connection could be tried: this process has no descriptor, thread or memory left for it.
    Exhausted(String),
    /// The connection broke before the response's head was whole.
    Reset(String),
    /// The connection broke, or ended, within the response's body.
    Truncated(String),
    /// A time limit of [`CallLimits`](super::CallLimits) has passed; the text names the wait that it ended.
    Timeout(&'static str),
    /// TLS could not be agreed on, or broke.
    Tls(String),
    /// The response is not HTTP as supported here.
    Protocol(String),
    /// The response is a redirect with this status, to this target. None is followed: it would take the key elsewhere.
    Redirected(u16, String),
    /// The response is compressed, in this encoding.
    Encoded(String),
    /// The response's body has more bytes than this limit.
    TooLarge(usize),
    /// The server is silent and refuses new connections: it has stopped, though it left its connection open.
    Stopped,
    /// The server accepts connections, but its engine stands still, so the call was given up.
    Hung,
    /// Discovery was answered with this status.
    Status(u16),
}

impl Failure {
    /// The failure of an attempt to connect. An error that only shows a shortage of this process says nothing about the
    /// upstream.
    pub(super) fn of_connect(error: &io::Error) -> Self {
        let shortages = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
        match Errno::from_io_error(error) {
            Some(errno) if shortages.contains(&errno) => Failure::Exhausted(error.to_string()),
            _ => Failure::Refused(error.to_string()),
        }
    }

    /// True if the upstream may have been restarted, so that the discovered facts may be wrong now.
    pub fn is_connection_lost(&self) -> bool {
        match self {
            Failure::Refused(_) | Failure::Reset(_) | Failure::Truncated(_) | Failure::Stopped => true,
            // The machine is off, or starting.
            Failure::Timeout(what) => [WHILE_CONNECTING, WHILE_LOOKING_UP].contains(what),
            Failure::ClientGone
            | Failure::Exhausted(_)
            | Failure::Hung
            | Failure::Tls(_)
            | Failure::Protocol(_)
            | Failure::Redirected(..)
            | Failure::Encoded(_)
            | Failure::TooLarge(_)
            | Failure::Status(_) => false,
        }
    }

    /// A redirect. The query of its target is not shown, since it may hold a key.
    pub(super) fn redirected(status: u16, target: &str) -> Self {
        let target = target.split(['?', '#']).next().unwrap_or_default();
        Failure::Redirected(status, target.to_owned())
    }

    /// Edits the text that may hold words of the server.
    pub fn edit_words(mut self, edit: impl Fn(&mut String)) -> Self {
        if let Failure::Protocol(words) | Failure::Redirected(_, words) | Failure::Encoded(words) = &mut self
        {
            edit(words);
        }
        self
    }

    /// True if no connection could be made, so that the server is down or starting.
    pub fn is_refused(&self) -> bool {
        matches!(self, Failure::Refused(_))
    }

    /// True if the request was never sent, so that no model can have begun to work on it.
    pub fn is_unsent(&self) -> bool {
        matches!(self, Failure::Refused(_) | Failure::Exhausted(_))
    }

    /// The error for the client, with the upstream's configured `name` and never its address.
    pub fn to_error(&self, name: &str) -> Error {
        let say = |kind, what: &str| Error::new(kind, format!("upstream '{name}' {what}")).source(self);
        match self {
            // The client cannot read it; only the log line shows the status.
            Failure::ClientGone => Error::new(Kind::Api, "the client has left"),
            Failure::Refused(_) => {
                say(Kind::BadGateway, "cannot be reached").retry(Retry::After(RETRY_AFTER_S))
            }
            Failure::Exhausted(_) => Error::exhausted(self),
            Failure::Reset(_) => say(Kind::BadGateway, "closed the connection without an answer")
                .retry(Retry::After(RETRY_AFTER_S)),
            Failure::Truncated(_) => {
                say(Kind::BadGateway, "broke off within its answer").retry(Retry::After(RETRY_AFTER_S))
            }
            Failure::Stopped => {
                say(Kind::BadGateway, "has stopped: it is silent and refuses new connections")
                    .retry(Retry::After(RETRY_AFTER_S))
            }
            Failure::Hung => say(Kind::BadGateway, "hangs: it has sent nothing for too long")
                .retry(Retry::After(RETRY_AFTER_S)),
            Failure::Timeout(what) => {
                say(Kind::Timeout, &format!("timed out {what}")).retry(Retry::After(RETRY_AFTER_S))
            }
            // A wrong certificate or URL stays wrong, so the client should not try again.
            Failure::Tls(_) => say(Kind::BadGateway, "cannot be reached by TLS").retry(Retry::Never),
            Failure::Protocol(_) => say(Kind::BadGateway, "sent an invalid response").retry(Retry::Never),
            Failure::Redirected(status, _) => {
                let what = format!(
                    "answered with a redirect (status {status}), which is never followed: check its URL"
                );
                say(Kind::BadGateway, &what).retry(Retry::Never)
            }
            Failure::Encoded(encoding) => {
                let what = format!(
                    "sent a compressed answer (content-encoding {encoding}), though it was asked for none"
                );
                say(Kind::BadGateway, &what).retry(Retry::Never)
            }
            Failure::TooLarge(_) => say(Kind::BadGateway, "sent an answer that is too long"),
            Failure::Status(status) => say(Kind::BadGateway, &format!("answered with status {status}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::ClientGone => f.write_str("the client has left"),
            Failure::Refused(why) => write!(f, "no connection: {why}"),
            Failure::Exhausted(why) => write!(f, "no connection could be tried: {why}"),
            Failure::Reset(why) => write!(f, "connection lost before the response: {why}"),
            Failure::Truncated(why) => write!(f, "connection lost within the response: {why}"),
            Failure::Hung => f.write_str("hangs: silent, though it accepts connections"),
            Failure::Stopped => f.write_str("stopped: silent, and it refuses new connections"),
            Failure::Timeout(what) => write!(f, "timed out {what}"),
            Failure::Tls(why) if why.contains("CaUsedAsEndEntity") => {
                write!(f, "TLS: {why}: the server's certificate is one of an authority; {REMAKE}")
            }
            Failure::Tls(why) => write!(f, "TLS: {why}"),
            Failure::Protocol(why) => write!(f, "invalid response: {why}"),
            Failure::Redirected(status, target) => {
                write!(f, "invalid response: status {status} to '{target}'; redirects are never followed")
            }
            Failure::Encoded(encoding) => {
                write!(
                    f,
                    "invalid response: content-encoding '{encoding}', though only identity was asked for"
                )
            }
            Failure::TooLarge(size) => write!(f, "an answer of more than {size} bytes"),
            Failure::Status(status) => write!(f, "status {status}"),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_reads_the_name_and_the_log_has_the_cause() {
        let why = || "10.1.2.3:8000 said no".to_owned();
        for (failure, kind, retry) in [
            (Failure::Refused(why()), Kind::BadGateway, Retry::After(1)),
            (Failure::Reset(why()), Kind::BadGateway, Retry::After(1)),
            (Failure::Truncated(why()), Kind::BadGateway, Retry::After(1)),
            (Failure::Tls(why()), Kind::BadGateway, Retry::Never),
            (Failure::Protocol(why()), Kind::BadGateway, Retry::Never),
        ] {
            let error = failure.to_error("spark");
            assert_eq!((error.kind, error.retry), (kind, retry), "{failure:?}");
            assert!(
                error.message.contains("'spark'") && !error.message.contains("10.1"),
                "{}",
                error.message
            );
            assert!(error.source.unwrap().contains("10.1.2.3"));
        }
    }

    #[test]
    fn a_shortage_of_this_process_says_nothing_about_the_upstream() {
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            let failure = Failure::of_connect(&errno.into());
            assert!(
                failure.is_unsent() && !failure.is_refused() && !failure.is_connection_lost(),
                "{failure}"
            );
            let error = failure.to_error("spark");
            assert_eq!((error.kind, error.retry), (Kind::Overloaded, Retry::After(5)));
            assert!(!error.message.contains("spark'"), "{}", error.message);
        }
        for error in [Errno::CONNREFUSED.into(), Errno::NETUNREACH.into(), io::Error::other("no such host")] {
            let failure = Failure::of_connect(&error);
            assert!(failure.is_unsent() && failure.is_refused() && failure.is_connection_lost(), "{failure}");
        }
    }

    #[test]
    fn the_query_of_a_redirect_is_not_shown() {
        for (target, shown) in
            [("/login?token=sk-4711#x", "'/login'"), ("//h/a#sk-4711", "'//h/a'"), ("", "''")]
        {
            let failure = Failure::redirected(307, target).to_string();
            assert!(failure.contains(shown) && !failure.contains("4711"), "{failure}");
        }
        let failure = Failure::redirected(302, "/sk-4711/")
            .edit_words(|words| *words = words.replace("sk-4711", "***"));
        assert!(failure.to_string().contains("'/***/'"), "{failure}");
    }

    #[test]
    fn the_client_reads_why_an_answer_cannot_be_used() {
        for (failure, said) in [
            (Failure::redirected(307, "http://10.1.2.3/x"), "redirect (status 307)"),
            (Failure::Encoded("gzip".into()), "content-encoding gzip"),
        ] {
            let error = failure.to_error("cloud");
            assert_eq!((error.kind, error.retry), (Kind::BadGateway, Retry::Never));
            assert!(error.message.contains(said) && !error.message.contains("10.1"), "{}", error.message);
        }
    }

    #[test]
    fn the_certificate_of_an_authority_has_a_remedy() {
        let text =
            Failure::Tls("invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))".into()).to_string();
        assert!(text.contains("basicConstraints=critical,CA:FALSE"), "{text}");
        assert!(!Failure::Tls("UnknownIssuer".into()).to_string().contains("CA:FALSE"));
    }

    #[test]
    fn a_timeout_is_a_504_that_names_the_wait() {
        let error = Failure::Timeout("before the first byte").to_error("spark");
        assert_eq!(error.kind, Kind::Timeout);
        assert_eq!(error.message, "upstream 'spark' timed out before the first byte");
    }
}
