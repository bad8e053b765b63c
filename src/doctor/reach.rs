//! The judgement of the models listing: whether the server can be reached, and accepts the key. No I/O.

use std::sync::Arc;

use super::judge::{doubtful, fine, wrong};
use super::verdict::Verdict;
use crate::config::UpstreamConfig;
use crate::dialect::ServerKind;
use crate::fleet::Discovered;
use crate::transport::Failure;

pub(super) const REACHABLE: &str = "reachable";
pub(super) const KEY: &str = "key";
const PROTOCOL: &str = "protocol";

/// The places of a key.
const KEY_PLACES: &str = "SPARKGAP_UPSTREAM_KEY, --upstream-key-file, or api_key in a Lua file";

/// Judges the configuration of an upstream that speaks the Messages API, which is asked nothing.
pub(super) fn passed(config: &UpstreamConfig) -> Vec<Verdict> {
    let text = "it speaks the Messages API: requests pass as they are, and sparkgap sends none of its own, so no check was made";
    let doubts = config.doubts().into_iter().map(|doubt| doubtful(KEY, doubt, None));
    doubts.chain([fine(PROTOCOL, text)]).collect()
}

/// The end of advice on a URL.
const LISTING: &str = "check the URL: an OpenAI-compatible server lists its models at /models below it";

/// Checks that the server can be reached and accepts the key. `words` are the server's own, if it has refused the listing.
pub(super) fn reached(
    config: &UpstreamConfig,
    words: &str,
    result: &Result<Arc<Discovered>, Failure>,
) -> Vec<Verdict> {
    let (url, has_key) = (&config.url, config.api_key.is_some());
    let failure = match result {
        Ok(found) => {
            let key = if has_key { "the key is accepted" } else { "none is asked for" };
            let name = match found.flavour {
                ServerKind::Unknown => "a server of an unknown kind".to_string(),
                flavour => flavour.name().to_string(),
            };
            return vec![fine(REACHABLE, format!("{url} answers: {name}")), fine(KEY, key)];
        }
        Err(failure) => failure,
    };
    let (text, fix) = match (failure, has_key) {
        (Failure::Status(401), true) => (
            "the server does not accept the key",
            format!("set the key that the server was started with: {KEY_PLACES}"),
        ),
        (Failure::Status(401), false) => {
            ("the server asks for a key, and none is configured", format!("set it: {KEY_PLACES}"))
        }
        (Failure::Status(403), true) => {
            ("the server refuses access with this key", format!("check the key and its rights: {KEY_PLACES}"))
        }
        (Failure::Status(403), false) => (
            "the server refuses access, and no key is configured",
            format!(
                "if it asks for a key, set it: {KEY_PLACES}; otherwise let the server, or a gateway before it, admit this machine"
            ),
        ),
        (failure, _) => return vec![unreached(config, words, failure)],
    };
    vec![fine(REACHABLE, format!("{url} answers")), wrong(KEY, with_words(text.to_owned(), words), fix)]
}

fn with_words(text: String, words: &str) -> String {
    if words.trim().is_empty() { text } else { format!("{text}: {}", words.trim()) }
}

fn unreached(config: &UpstreamConfig, words: &str, failure: &Failure) -> Verdict {
    let proxy = config.connection.http_proxy.as_deref();
    let way = proxy.map_or_else(String::new, |proxy| format!(" through the proxy {proxy}"));
    let text = with_words(format!("{}{way}: {failure}", config.url), words);
    let fix = match (proxy, failure) {
        (Some(proxy), Failure::Refused(why)) if why.ends_with("407") => format!(
            "have the proxy {proxy} (http_proxy) admit this machine without a password, or name another one: sparkgap sends none"
        ),
        (
            Some(proxy),
            Failure::Refused(_)
            | Failure::Reset(_)
            | Failure::Truncated(_)
            | Failure::Timeout(_)
            | Failure::Protocol(_)
            | Failure::Redirected(..)
            | Failure::Encoded(_),
        ) => format!(
            "check that the proxy {proxy} (http_proxy) runs and lets this machine connect to the server; then whether the server runs"
        ),
        (_, failure) => server_fix(config, words, failure),
    };
    wrong(REACHABLE, text, fix)
}

fn server_fix(config: &UpstreamConfig, words: &str, failure: &Failure) -> String {
    let is_plain = config.url.starts_with("http://");
    let fix = match failure {
        Failure::Refused(why) if why.contains("lookup") || why.contains("host name") => {
            "check the name of the host in the URL, and that this machine's name server knows it"
        }
        Failure::Reset(_) if is_plain => {
            "use https:// if the server speaks TLS; otherwise see the server's log: it closes the connection"
        }
        Failure::Refused(_) | Failure::Reset(_) | Failure::Truncated(_) => {
            "start the server, on an address that this machine can reach (--host 0.0.0.0); check host, port and firewall"
        }
        Failure::Exhausted(_) => "raise the limit on open files and threads of this process",
        Failure::Hung => "restart the server: it hangs",
        Failure::Stopped => "start the server again: it refuses new connections",
        Failure::Timeout(_) => {
            "check host and firewall; a server that is still loading its model needs some minutes"
        }
        Failure::Tls(why) => return tls_fix(config, why),
        Failure::Status(404) => "check the URL: the base URL of these servers ends in /v1",
        Failure::Status(429) => "the server limits requests: wait, and examine it again",
        Failure::Status(500..) => "wait until the server has loaded its model; see its log",
        Failure::Status(_) if is_plain && words.to_lowercase().contains("https") => {
            "use https:// in the URL: the server speaks TLS"
        }
        Failure::Status(_) => return format!("see the server's words and its log; {LISTING}"),
        Failure::Protocol(_) if is_plain => return format!("{LISTING}; use https:// if it speaks TLS"),
        Failure::Protocol(_)
        | Failure::Redirected(..)
        | Failure::Encoded(_)
        | Failure::TooLarge(_)
        | Failure::ClientGone => LISTING,
    };
    fix.into()
}

/// The fix for a failure of TLS, by the words of rustls.
fn tls_fix(config: &UpstreamConfig, why: &str) -> String {
    let own = config.connection.ca_file.as_ref();
    if why.contains("not valid yet") || why.contains("NotValidYet") {
        "correct the clock of this machine, or of the one that made the certificate".into()
    } else if why.contains("xpired") {
        let ago = days_ago(why).map_or_else(String::new, |days| format!(" (it ended {days} days ago)"));
        format!(
            "renew the server's certificate{ago}; if it is still valid, correct the clock of this machine"
        )
    } else if why.contains("not valid for name") || why.contains("NotValidForName") {
        "use a name of the certificate as the host of the URL, or make a certificate for this host".into()
    } else if why.contains("CaUsedAsEndEntity") {
        "make the server's certificate again (docs/tls.md)".into()
    } else if let (true, Some(file)) = (why.contains("UnknownIssuer"), own) {
        format!(
            "name the authority that made the server's certificate in ca_file: it is not in {}",
            file.display()
        )
    } else if why.contains("UnknownIssuer") {
        "if the certificate is your own, pass its authority's with --ca-file, or as ca_file in a Lua file; if you did, it was made by another authority".into()
    } else {
        "use http:// if the server has no TLS; see its log".into()
    }
}

/// The days since a certificate's end; rustls tells the seconds: `(186592801 seconds ago)`.
fn days_ago(why: &str) -> Option<u64> {
    let seconds: u64 = why.split_once(" seconds ago")?.0.rsplit_once('(')?.1.parse().ok()?;
    Some(seconds / (24 * 60 * 60))
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Level;
    use super::*;
    use crate::config::Secret;

    fn told(config: &UpstreamConfig, words: &str, failure: Failure) -> String {
        let verdicts = reached(config, words, &Err(failure));
        let last = verdicts.last().unwrap();
        assert_eq!(last.level, Level::Wrong);
        format!("{} {} {}", last.check, last.text, last.fix.as_deref().unwrap())
    }

    #[test]
    fn an_unreachable_server_gets_a_fix_for_each_cause() {
        let plain = UpstreamConfig::new("v", "http://box/v1");
        let secure = UpstreamConfig::new("v", "https://box/v1");
        for (config, failure, expected) in [
            (&plain, Failure::Refused("x".into()), "--host 0.0.0.0"),
            (&plain, Failure::Refused("failed to lookup address information".into()), "name server"),
            (&plain, Failure::Reset("x".into()), "use https://"),
            (&plain, Failure::Exhausted("x".into()), "limit on open files"),
            (&plain, Failure::Timeout("while connecting"), "still loading"),
            (&plain, Failure::Status(404), "ends in /v1"),
            (&plain, Failure::Status(429), "limits requests"),
            (&plain, Failure::Status(503), "loaded its model"),
            (&plain, Failure::Protocol("x".into()), "/models"),
            (&secure, Failure::Reset("x".into()), "--host 0.0.0.0"),
            (&secure, Failure::Tls("UnknownIssuer".into()), "--ca-file"),
            (&secure, Failure::Tls("certificate expired: verification time 1".into()), "certificate;"),
            (
                &secure,
                Failure::Tls("certificate expired: x (UNIX) (172900 seconds ago)".into()),
                "2 days ago",
            ),
            (&secure, Failure::Tls("certificate not valid yet: 1".into()), "clock"),
            (
                &secure,
                Failure::Tls("certificate not valid for name \"box\"".into()),
                "a name of the certificate",
            ),
            (
                &secure,
                Failure::Tls("received corrupt message of type InvalidContentType".into()),
                "use http://",
            ),
        ] {
            let told = told(config, "", failure);
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn the_servers_own_words_are_told() {
        let plain = UpstreamConfig::new("v", "http://box/v1");
        for (status, words, expected) in [
            (400, "no such tenant", "status 400: no such tenant see the server's words"),
            (400, "The plain HTTP request was sent to HTTPS port", "use https://"),
            (403, "address not allowed", "refuses access, and no key is configured: address not allowed"),
            (401, "Unauthorized", "asks for a key, and none is configured: Unauthorized"),
        ] {
            let told = told(&plain, words, Failure::Status(status));
            assert!(told.contains(expected), "{told}");
        }
    }

    #[test]
    fn a_proxy_and_a_file_of_authorities_are_named() {
        let mut config = UpstreamConfig::new("v", "https://box/v1");
        config.connection.http_proxy = Some("http://10.0.0.1:3128".into());
        for failure in [
            Failure::Refused("the proxy does not connect to the server: it responded 403".into()),
            Failure::Timeout("while connecting"),
            Failure::Protocol("x".into()),
        ] {
            let told = told(&config, "", failure);
            assert!(told.contains("through the proxy http://10.0.0.1:3128"), "{told}");
            assert!(told.contains("(http_proxy) runs") && !told.contains("/models"), "{told}");
        }
        let refused = Failure::Refused("the proxy does not connect to the server: it responded 407".into());
        assert!(told(&config, "", refused).contains("without a password"));
        config.connection.ca_file = Some("/etc/our-ca.pem".into());
        let told = told(&config, "", Failure::Tls("invalid peer certificate: UnknownIssuer".into()));
        assert!(told.contains("not in /etc/our-ca.pem"), "{told}");
    }

    #[test]
    fn a_missing_key_and_a_wrong_key_are_told_apart() {
        for (has_key, expected) in [(false, "none is configured"), (true, "does not accept")] {
            let mut config = UpstreamConfig::new("v", "http://box/v1");
            config.api_key = has_key.then(|| Secret::new("sk-1"));
            let told = told(&config, "", Failure::Status(401));
            assert!(told.starts_with(KEY) && told.contains(expected), "{told}");
            let told = self::told(&config, "", Failure::Status(403));
            assert_eq!(told.contains("with this key"), has_key, "{told}");
        }
    }
}
