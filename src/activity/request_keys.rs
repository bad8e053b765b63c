//! The keys that one request brings, and texts about it without them: for the log, the state folder, `/activity` and the
//! live page. The client itself gets its texts unchanged.

use std::fmt;

use memchr::memmem;

use super::record::{Record, RequestDetails};
use super::redact::hide_keys;
use crate::config::{HIDDEN_SIZE_MIN, STARS};
use crate::shown::cut;

/// The most bytes of a text that are kept when keys are taken out of it. Every reader shows less.
const TEXT_SIZE_MAX: usize = 4096;

/// The mark of a text that was cut.
const CUT_MARK: &str = "…";

/// The keys that one request brings. `Debug` prints stars.
#[derive(Clone, Default)]
pub struct RequestKeys(Vec<String>);

impl RequestKeys {
    /// These keys. Those of fewer than [`HIDDEN_SIZE_MIN`] bytes may be a part of any word and are not sought.
    pub fn new(keys: Vec<String>) -> Self {
        RequestKeys(keys.into_iter().filter(|key| key.len() >= HIDDEN_SIZE_MIN).collect())
    }

    /// A text about the request with stars in the place of its keys and of whatever looks like a key. Of a key that was cut
    /// with its text the rest becomes stars too.
    pub fn cleaned(&self, text: impl fmt::Display) -> String {
        let text = text.to_string();
        let mut bytes = cut(&text, TEXT_SIZE_MAX).as_bytes().to_vec();
        hide_keys(&mut bytes, &self.0);
        self.0.iter().for_each(|key| hide_beginnings(&mut bytes, key.as_bytes()));
        // Stars may have replaced a part of a character only if a key ends within one.
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Replaces the keys in the texts of a record: an upstream or a client may repeat them.
    pub fn hide_in(&self, record: &mut Record) {
        if let Some(error) = &mut record.error {
            *error = self.cleaned(&*error);
        }
        self.hide_in_details(&mut record.details);
    }

    /// Replaces the request's own keys in the names that its client and its hooks gave.
    pub fn hide_in_details(&self, details: &mut RequestDetails) {
        let RequestDetails { client_model, upstream_model, session, agent, .. } = details;
        for name in [client_model, upstream_model] {
            if self.may_stand_in(name) {
                *name = self.cleaned(&*name);
            }
        }
        for name in [session, agent].into_iter().flatten() {
            if self.may_stand_in(name) {
                *name = self.cleaned(&*name).into();
            }
        }
    }

    /// True if a text holds the beginning of a key, which few do: the others are not copied.
    fn may_stand_in(&self, text: &str) -> bool {
        let beginning = |key: &String| key.as_bytes().get(..HIDDEN_SIZE_MIN).map(<[u8]>::to_vec);
        text.contains("\\")
            || self.0.iter().filter_map(beginning).any(|key| memmem::find(text.as_bytes(), &key).is_some())
    }
}

impl fmt::Debug for RequestKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(STARS)
    }
}

/// Replaces the beginning of a key where its text was cut.
fn hide_beginnings(bytes: &mut [u8], key: &[u8]) {
    let Some(beginning) = key.get(..HIDDEN_SIZE_MIN) else { return };
    let found: Vec<usize> = memmem::find_iter(bytes, beginning).collect();
    for at in found {
        let Some(rest) = bytes.get_mut(at..) else { continue };
        let same = rest.iter().zip(key).take_while(|(one, other)| one == other).count();
        let is_cut =
            rest.get(same..).is_some_and(|more| more.is_empty() || more.starts_with(CUT_MARK.as_bytes()));
        if is_cut && let Some(stars) = rest.get_mut(..same) {
            stars.fill(b'*');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::Caller;

    const KEY: &str = "canary.4711/of-a-client";

    fn keys() -> RequestKeys {
        RequestKeys::new(vec![KEY.to_owned(), "short".to_owned()])
    }

    #[test]
    fn texts_lose_keys_and_what_looks_like_one() {
        let cleaned = |text: &str| keys().cleaned(text);
        assert_eq!(
            cleaned(&format!("GET /v1/{KEY} is unknown")),
            "GET /v1/*********************** is unknown"
        );
        for (text, canary) in [
            (format!("a short key {KEY}"), "canary"),
            ("it says sk-CANARYU1abcdefghijklmnop1".to_owned(), "CANARY"),
            ("it says password=CANARY12".to_owned(), "CANARY"),
            ("it says \\u0063anary.4711\\/of-a-client".to_owned(), "anary"),
            (format!("cut {}", cut(KEY, 12)), "canary"),
            (format!("cut {}… [GET]", cut(KEY, 12)), "canary"),
            (format!("{}{KEY}", "x".repeat(TEXT_SIZE_MAX - 10)), "canary"),
        ] {
            let text = cleaned(&text);
            assert!(!text.contains(canary) && text.contains("***"), "{text}");
        }
        for text in ["", "a short text", "canary.4 is another word", "canary.4711 is not cut", "ä…"] {
            assert_eq!(cleaned(text), text);
        }
        let many = "canary.4".repeat(100_000);
        assert!(cleaned(&many).len() <= TEXT_SIZE_MAX, "of limited size");
        assert_eq!(format!("{:?}", keys()), STARS);
    }

    #[test]
    fn records_lose_keys_in_every_text() {
        let mut record = Record::new("req_1", &Caller::new([127, 0, 0, 1].into()));
        record.error = Some(format!("{KEY} and ghp_CANARY4711abcdefgh"));
        record.details.client_model = KEY.to_owned();
        record.details.upstream_model = format!("x-{KEY}");
        record.details.session = Some(KEY.into());
        record.details.agent = Some(KEY.get(..20).unwrap().into());
        keys().hide_in(&mut record);
        let text = format!("{record} {}", record.to_value().to_json());
        assert!(!text.contains("canary") && !text.contains("CANARY"), "{text}");
        record.details.client_model = "sk-a-model-with-a-strange-name-1".to_owned();
        let before = record.details.clone();
        keys().hide_in_details(&mut record.details);
        assert_eq!(record.details, before, "names that are not keys of the request stay");
    }
}
