//! The sessions of the live page: a browser sends its key once, and from then on a cookie with a random id.
//!
//! Decides only: clock and ids are arguments. A session holds its key on this side, and counts only while that key is
//! valid, so it ends with the key at a reload.

use std::time::{Duration, Instant};

use subtle::ConstantTimeEq as _;

use crate::config::Secret;
use crate::http::Request;

/// The name of the cookie.
const COOKIE: &str = "sparkgap_ui";

/// The most sessions that are kept. Beyond it the one goes that was unused for longest.
const SESSIONS_MAX: usize = 64;

/// A session that was not used for this time ends.
const UNUSED_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// The sessions of browsers.
#[derive(Debug, Default)]
pub struct PageSessions(Vec<PageSession>);

#[derive(Debug)]
struct PageSession {
    id: Secret,
    key: Secret,
    used: Instant,
}

impl PageSessions {
    /// Opens a session for the owner of this key. `id` is the random text that the cookie holds.
    pub fn open(&mut self, id: Secret, key: Secret, now: Instant) {
        if self.0.len() >= SESSIONS_MAX {
            let oldest = self.0.iter().enumerate().min_by_key(|(_, session)| session.used);
            oldest.map(|(at, _)| at).map(|at| self.0.remove(at));
        }
        self.0.push(PageSession { id, key, used: now });
    }

    /// The key of the session that a request's cookie names. Compares with each id in full, so that the time reveals
    /// nothing of where they differ.
    pub fn key_of(&mut self, request: &Request, now: Instant) -> Option<Secret> {
        self.0.retain(|session| now.saturating_duration_since(session.used) <= UNUSED_MAX);
        let sent = cookie(request)?;
        let mut found = None;
        for session in &mut self.0 {
            if bool::from(session.id.expose().as_bytes().ct_eq(sent)) {
                session.used = now;
                found = Some(session.key.clone());
            }
        }
        found
    }

    /// Ends the session that a request's cookie names.
    pub fn close(&mut self, request: &Request) {
        let Some(sent) = cookie(request) else { return };
        self.0.retain(|session| !bool::from(session.id.expose().as_bytes().ct_eq(sent)));
    }

    /// The value of `Set-Cookie` that gives a browser this session, or takes its session away if `id` is empty. Scripts
    /// cannot read it, and no page of another site has it sent. `prefix`: the prefix of every path.
    pub fn set_cookie(id: &str, prefix: &str, is_secure: bool) -> String {
        let secure = if is_secure { "; Secure" } else { "" };
        let end = if id.is_empty() { "; Max-Age=0" } else { "" };
        format!("{COOKIE}={id}; Path={prefix}/ui; HttpOnly; SameSite=Strict{secure}{end}")
    }
}

/// The value of our cookie in a request.
fn cookie(request: &Request) -> Option<&[u8]> {
    let pairs = request.headers.values("cookie").flat_map(|line| line.split(|byte| *byte == b';'));
    let mut named =
        pairs.filter_map(|pair| pair.trim_ascii().strip_prefix(COOKIE.as_bytes())?.strip_prefix(b"="));
    named.next().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cookies: &[&str]) -> Request {
        let headers = cookies.iter().map(|cookie| ("cookie", *cookie)).collect();
        Request { method: "GET".into(), path: "/ui".into(), query: None, authority: None, headers }
    }

    fn key(sessions: &mut PageSessions, cookies: &[&str], now: Instant) -> Option<String> {
        sessions.key_of(&request(cookies), now).map(|key| key.expose().to_owned())
    }

    #[test]
    fn a_cookie_names_a_session_until_it_ends() {
        let (mut sessions, now) = (PageSessions::default(), Instant::now());
        sessions.open(Secret::new("one"), Secret::new("sk-1"), now);
        sessions.open(Secret::new("two"), Secret::new("sk-2"), now);
        for (cookies, expected) in [
            (&["sparkgap_ui=one"][..], Some("sk-1")),
            (&["a=b; sparkgap_ui=two; c=d"], Some("sk-2")),
            (&["a=b", "sparkgap_ui=two"], Some("sk-2")),
            (&["sparkgap_ui=on"], None),
            (&["sparkgap_ui=onee"], None),
            (&["sparkgap_ui="], None),
            (&["sparkgap_ui"], None),
            (&["sparkgap_uix=one"], None),
            (&["x=sparkgap_ui=one"], None),
            (&["sparkgap_ui=sk-1"], None),
            (&[], None),
        ] {
            assert_eq!(key(&mut sessions, cookies, now).as_deref(), expected, "{cookies:?}");
        }
        sessions.close(&request(&["sparkgap_ui=one"]));
        assert_eq!(key(&mut sessions, &["sparkgap_ui=one"], now), None);
        assert!(key(&mut sessions, &["sparkgap_ui=two"], now + UNUSED_MAX).is_some());
        assert_eq!(key(&mut sessions, &["sparkgap_ui=two"], now + UNUSED_MAX * 3), None);
    }

    #[test]
    fn the_session_that_was_unused_for_longest_makes_room() {
        let (mut sessions, now) = (PageSessions::default(), Instant::now());
        let second = Duration::from_secs(1);
        (0..64u32)
            .for_each(|i| sessions.open(Secret::new(format!("id{i}")), Secret::new("sk"), now + second * i));
        assert!(key(&mut sessions, &["sparkgap_ui=id0"], now + second * 100).is_some());
        sessions.open(Secret::new("late"), Secret::new("sk"), now + second * 101);
        let mut is_kept =
            |id: &str| key(&mut sessions, &[&format!("sparkgap_ui={id}")], now + second * 102).is_some();
        assert!(is_kept("id0") && is_kept("late") && is_kept("id2") && !is_kept("id1"));
    }

    #[test]
    fn the_cookie_is_for_the_page_alone() {
        let cookie = PageSessions::set_cookie("x", "/llm", true);
        assert_eq!(cookie, "sparkgap_ui=x; Path=/llm/ui; HttpOnly; SameSite=Strict; Secure");
        assert_eq!(
            PageSessions::set_cookie("", "", false),
            "sparkgap_ui=; Path=/ui; HttpOnly; SameSite=Strict; Max-Age=0"
        );
    }
}
