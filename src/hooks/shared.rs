//! `shared`: the dictionary that all VMs share, and that outlives a reload.
//!
//! Every operation is atomic. Every size has a limit, and exceeding it is an error. Does not know Lua.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::json::{Document, Number, Value};

/// The most keys.
pub const KEYS_MAX: usize = 10_000;
/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// The largest value, in bytes of JSON.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
/// The most bytes of all values together.
pub const TOTAL_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most bytes of keys and values that a restart does not forget.
pub const SAVED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The dictionary. Clones share one.
#[derive(Clone, Default)]
pub struct Shared(Arc<Mutex<SharedTable>>);

#[derive(Default)]
struct SharedTable {
    entries: HashMap<String, SharedEntry>,
    total_bytes: usize,
}

struct SharedEntry {
    value: Value<'static>,
    bytes: usize,
    expires: Option<Instant>,
}

impl SharedEntry {
    fn live(&self, now: Instant) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl Shared {
    /// The value of `key`, if it is there and has not expired.
    pub fn get(&self, key: &str, now: Instant) -> Option<Value<'static>> {
        self.with(|state| state.entries.get(key).filter(|entry| entry.live(now)).map(|e| e.value.clone()))
    }

    /// Sets `key`; `None` or `null` removes it.
    ///
    /// # Errors
    /// A limit was exceeded.
    pub fn set(
        &self,
        key: &str,
        value: Option<Value<'static>>,
        ttl: Option<Duration>,
        now: Instant,
    ) -> Result<(), String> {
        let value = value.filter(|value| !value.is_null());
        let bytes = value.as_ref().map_or(0, |value| value.to_json().len());
        if bytes > VALUE_BYTES_MAX {
            return Err(format!("shared: a value of {bytes} bytes; {VALUE_BYTES_MAX} is the most"));
        }
        self.with(|state| match value {
            None => {
                state.remove(key);
                Ok(())
            }
            Some(value) => state.put(
                key,
                SharedEntry { value, bytes, expires: ttl.and_then(|t| now.checked_add(t)) },
                now,
            ),
        })
    }

    /// Adds to the number at `key` (0 if there is none) and returns the sum. The time to live counts from the first
    /// call, so that the count of a time window ends with the window.
    ///
    /// # Errors
    /// A limit was exceeded, or the value is not a number.
    pub fn increment(&self, key: &str, by: f64, ttl: Option<Duration>, now: Instant) -> Result<f64, String> {
        self.with(|state| {
            if let Some(entry) = state.entries.get_mut(key).filter(|entry| entry.live(now)) {
                let Some(sum) = entry.value.as_f64().map(|n| n + by) else {
                    return Err(format!("shared: the value of '{key}' is not a number"));
                };
                entry.value = Value::Number(Number::Float(sum));
                return Ok(sum);
            }
            const NUMBER_BYTES: usize = 8;
            let value = Value::Number(Number::Float(by));
            let expires = ttl.and_then(|t| now.checked_add(t));
            state.put(key, SharedEntry { value, bytes: NUMBER_BYTES, expires }, now).map(|()| by)
        })
    }

    /// The keys and values that have not expired, as text for the state folder, as far as they fit in [`SAVED_BYTES_MAX`].
    /// `seconds` are those since 1970 at `now`.
    pub fn saved(&self, seconds: u64, now: Instant) -> Vec<(String, String)> {
        let mut left = SAVED_BYTES_MAX;
        self.with(|state| {
            let mut saved = Vec::new();
            for (key, entry) in state.entries.iter().filter(|(_, entry)| entry.live(now)) {
                let expires =
                    entry.expires.map_or(0, |at| seconds + at.saturating_duration_since(now).as_secs());
                let text = format!("{expires} {}", entry.value.to_json());
                let Some(rest) = left.checked_sub(key.len() + text.len()) else { continue };
                left = rest;
                saved.push((key.clone(), text));
            }
            saved
        })
    }

    /// Takes over a value of [`Shared::saved`] from before a restart. Ignores one that has expired since, and a text that
    /// is not such a value.
    pub fn restore(&self, key: &str, text: &str, seconds: u64, now: Instant) {
        let Some((expires, json)) = text.split_once(' ') else { return };
        let Ok(expires) = expires.parse::<u64>() else { return };
        let left = expires.saturating_sub(seconds);
        if expires > 0 && left == 0 {
            return;
        }
        let ttl = (expires > 0).then(|| Duration::from_secs(left));
        let mut document = Document::from(json.as_bytes().to_vec());
        if let Ok(value) = document.parse() {
            // It met the limits when it was set.
            let _ = self.set(key, Some(value.into_owned()), ttl, now);
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut SharedTable) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl SharedTable {
    fn put(&mut self, key: &str, entry: SharedEntry, now: Instant) -> Result<(), String> {
        if key.len() > KEY_BYTES_MAX {
            return Err(format!("shared: a key of {} bytes; {KEY_BYTES_MAX} is the most", key.len()));
        }
        self.remove(key);
        if self.is_full(&entry) {
            self.entries.retain(|_, entry| entry.live(now));
            self.total_bytes = self.entries.values().map(|entry| entry.bytes).sum();
        }
        if self.is_full(&entry) {
            return Err(format!(
                "shared is full: {KEYS_MAX} keys and {} MiB are the most; give the values a time to live",
                TOTAL_BYTES_MAX >> 20
            ));
        }
        self.total_bytes += entry.bytes;
        self.entries.insert(key.to_owned(), entry);
        Ok(())
    }

    fn is_full(&self, entry: &SharedEntry) -> bool {
        self.entries.len() >= KEYS_MAX || self.total_bytes + entry.bytes > TOTAL_BYTES_MAX
    }

    fn remove(&mut self, key: &str) {
        if let Some(old) = self.entries.remove(key) {
            self.total_bytes = self.total_bytes.saturating_sub(old.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_as_text_until_they_expire() {
        let (shared, now) = (Shared::default(), Instant::now());
        let value = Value::object([("a\n", Value::from("ü"))]);
        shared.set("kept", Some(value.clone()), None, now).unwrap();
        shared.set("short", Some(true.into()), Some(Duration::from_secs(60)), now).unwrap();
        shared.set("over", Some(true.into()), Some(Duration::ZERO), now).unwrap();
        let saved = shared.saved(1000, now);
        assert_eq!(saved.len(), 2);
        for (later, is_there) in [(1030, true), (1060, false)] {
            let restored = Shared::default();
            saved.iter().for_each(|(key, text)| restored.restore(key, text, later, now));
            assert_eq!(restored.get("kept", now), Some(value.clone()));
            assert_eq!(restored.get("short", now).is_some(), is_there);
            assert_eq!(restored.get("short", now + Duration::from_secs(30)), None);
        }
        let restored = Shared::default();
        for text in ["", "x 1", "0", "0 {", "-1 1"] {
            restored.restore("bad", text, 0, now);
        }
        assert_eq!(restored.get("bad", now), None);
    }

    #[test]
    fn only_so_much_is_saved() {
        let (shared, now) = (Shared::default(), Instant::now());
        let large = "x".repeat(VALUE_BYTES_MAX - 2);
        for i in 0..100 {
            shared.set(&i.to_string(), Some(large.clone().into()), None, now).unwrap();
        }
        assert_eq!(shared.saved(0, now).len(), SAVED_BYTES_MAX / VALUE_BYTES_MAX - 1);
    }

    #[test]
    fn values_expire_and_counts_keep_their_window() {
        let shared = Shared::default();
        let now = Instant::now();
        let ttl = Some(Duration::from_secs(10));
        let at = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(shared.increment("n", 1.0, ttl, now), Ok(1.0));
        assert_eq!(shared.increment("n", 2.0, ttl, at(9)), Ok(3.0));
        assert_eq!(shared.increment("n", 1.0, ttl, at(10)), Ok(1.0));
        shared.set("a", Some("x".into()), ttl, now).unwrap();
        assert_eq!(shared.get("a", at(9)), Some("x".into()));
        assert_eq!(shared.get("a", at(10)), None);
        shared.set("a", None, None, now).unwrap();
        assert_eq!(shared.get("a", now), None);
    }

    #[test]
    fn exceeding_a_limit_is_an_error() {
        let shared = Shared::default();
        let now = Instant::now();
        let ttl = Some(Duration::from_secs(1));
        let error = shared.set("big", Some("x".repeat(VALUE_BYTES_MAX).into()), None, now).unwrap_err();
        assert!(error.contains("65536"), "{error}");
        for i in 0..KEYS_MAX {
            shared.set(&i.to_string(), Some(true.into()), ttl, now).unwrap();
        }
        let error = shared.set("one more", Some(true.into()), None, now).unwrap_err();
        assert!(error.contains("full"), "{error}");
        shared.set("one more", Some(true.into()), None, now + Duration::from_secs(1)).unwrap();
        assert!(shared.increment("one more", 1.0, None, now).is_err());
    }

    #[test]
    fn all_values_together_have_a_limit() {
        let shared = Shared::default();
        let now = Instant::now();
        let text = "x".repeat(VALUE_BYTES_MAX - 2);
        for i in 0..TOTAL_BYTES_MAX / VALUE_BYTES_MAX {
            shared.set(&i.to_string(), Some(text.clone().into()), None, now).unwrap();
        }
        assert!(shared.set("one more", Some(text.clone().into()), None, now).is_err());
        shared.set("0", Some(text.into()), None, now).unwrap();
    }
}
