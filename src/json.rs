//! JSON documents: bytes -> [`Value`] -> bytes, with the order of object keys kept.
//!
//! simd-json does the parsing, into a tape whose buffers are reused; this module knows neither API.
//!
//! Why a tree of our own: simd-json's maps lose the order of keys beyond 32 entries, and `serde_json::Value`
//! copies every string. The order matters because the upstream's prefix cache compares bytes, and the copies
//! because a request is up to 32 MiB of strings that we only pass on.

mod changes;
mod document;
mod integers;
mod lines;
mod list;
mod parser;
mod pretty;
pub mod spans;
mod spares;
mod strict;
mod surrogates;

use std::borrow::Cow;
use std::collections::HashMap;

pub use changes::{add_changes, shortened};
pub use document::Document;
pub use lines::{PrettyLine, PrettyLines};
pub use list::{List, Share};
pub use parser::{ParseError, Parser, SpareParser, Tape, parse};
pub use spans::splice_member;

/// How deep arrays and objects may nest. The tree is walked recursively on a connection's 256 KiB stack,
/// so the limit is a matter of safety; no client or server comes near it.
pub const DEPTH_MAX: usize = 128;

/// One JSON value. Strings borrow from the parsed bytes unless they were made later.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value<'a> {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Bool(bool),
    /// Any number but those below.
    Number(Number),
    /// An integer beyond 64 bits: its digits, with the sign of a negative one.
    BigInteger(Cow<'a, str>),
    /// A string.
    String(Cow<'a, str>),
    /// An array.
    Array(List<'a, Value<'a>>),
    /// An object.
    Object(Object<'a>),
}

/// A JSON number, except for integers beyond 64 bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A negative integer, or one that was made from an `i64`.
    Int(i64),
    /// An integer that is not negative.
    Uint(u64),
    /// Anything else; finite.
    Float(f64),
}

/// A JSON object: its entries in the order of the document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object<'a>(List<'a, Entry<'a>>);

/// A key and its value.
pub type Entry<'a> = (Cow<'a, str>, Value<'a>);

impl<'a> Value<'a> {
    /// An object of these entries, in this order.
    pub fn object<const N: usize>(entries: [(&'static str, Value<'a>); N]) -> Self {
        Value::Object(entries.into_iter().map(|(key, value)| (Cow::Borrowed(key), value)).collect())
    }

    /// The string, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = self { Some(text) } else { None }
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(b) = self { Some(*b) } else { None }
    }

    /// The number as `u64`, if it is an integer in its range (`5` and `5.0` alike).
    pub fn as_u64(&self) -> Option<u64> {
        if let Value::Number(number) = self { number.as_u64() } else { None }
    }

    /// The number as `f64`, if it is a number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(number.as_f64()),
            Value::BigInteger(digits) => digits.parse().ok(),
            _ => None,
        }
    }

    /// The elements, if it is an array.
    pub fn as_array(&self) -> Option<&[Value<'a>]> {
        if let Value::Array(items) = self { Some(items) } else { None }
    }

    /// The object, if it is one.
    pub fn as_object(&self) -> Option<&Object<'a>> {
        if let Value::Object(object) = self { Some(object) } else { None }
    }

    /// The object to change, if it is one.
    pub fn as_object_mut(&mut self) -> Option<&mut Object<'a>> {
        if let Value::Object(object) = self { Some(object) } else { None }
    }

    /// The value of `key`, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.as_object()?.get(key)
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The same value, free of what it borrowed.
    pub fn into_owned(self) -> Value<'static> {
        match self {
            Value::Null => Value::Null,
            Value::Bool(b) => Value::Bool(b),
            Value::Number(number) => Value::Number(number),
            Value::BigInteger(digits) => Value::BigInteger(Cow::Owned(digits.into_owned())),
            Value::String(text) => Value::String(Cow::Owned(text.into_owned())),
            Value::Array(items) => {
                Value::Array(items.into_vec().into_iter().map(Value::into_owned).collect())
            }
            Value::Object(object) => {
                let entries = object.0.into_vec().into_iter();
                entries.map(|(k, v)| (Cow::Owned(k.into_owned()), v.into_owned())).collect::<Object>().into()
            }
        }
    }

    /// A view of the same value that lives no longer than this borrow: nothing is copied until it is changed.
    pub fn reborrow(&self) -> Value<'_> {
        match self {
            Value::Null => Value::Null,
            Value::Bool(b) => Value::Bool(*b),
            Value::Number(number) => Value::Number(*number),
            Value::BigInteger(digits) => Value::BigInteger(Cow::Borrowed(digits)),
            Value::String(text) => Value::String(Cow::Borrowed(text)),
            Value::Array(items) => Value::Array(List::Shared(items)),
            Value::Object(object) => Value::Object(Object(List::Shared(&object.0))),
        }
    }

    /// Appends the value as compact JSON. The same value always gives the same bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Bool(true) => out.extend_from_slice(b"true"),
            Value::Bool(false) => out.extend_from_slice(b"false"),
            Value::Number(number) => number.write(out),
            Value::BigInteger(digits) => out.extend_from_slice(digits.as_bytes()),
            Value::String(text) => write_str(text, out),
            Value::Array(items) => {
                out.push(b'[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
            Value::Object(object) => object.write(out),
        }
    }

    /// The value as compact JSON text.
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out);
        String::from_utf8(out).unwrap_or_default()
    }

    /// The value as JSON text with line breaks, for a file that people read and change.
    pub fn to_pretty_json(&self) -> String {
        let mut out = Vec::new();
        pretty::write(self, 0, &mut out);
        String::from_utf8(out).unwrap_or_default()
    }
}

impl Number {
    /// As `u64`, if it is an integer in its range.
    pub fn as_u64(self) -> Option<u64> {
        match self {
            Number::Int(n) => u64::try_from(n).ok(),
            Number::Uint(n) => Some(n),
            Number::Float(n) => {
                const EXACT_MAX: f64 = 9_007_199_254_740_992.0; // 2^53: above it floats skip integers
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "checked: integral, in range"
                )]
                (n.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&n)).then_some(n as u64)
            }
        }
    }

    /// As `f64`; large integers are rounded.
    pub fn as_f64(self) -> f64 {
        match self {
            #[allow(clippy::cast_precision_loss, reason = "documented")]
            Number::Int(n) => n as f64,
            #[allow(clippy::cast_precision_loss, reason = "documented")]
            Number::Uint(n) => n as f64,
            Number::Float(n) => n,
        }
    }

    fn write(self, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail, and serde_json writes a float that is not finite as null.
        let _ = match self {
            Number::Int(n) => serde_json::to_writer(out, &n),
            Number::Uint(n) => serde_json::to_writer(out, &n),
            Number::Float(n) => serde_json::to_writer(out, &n),
        };
    }
}

impl<'a> Object<'a> {
    /// An empty object.
    pub fn new() -> Self {
        Self::default()
    }

    /// The object as compact JSON text.
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        self.write(&mut out);
        String::from_utf8(out).unwrap_or_default()
    }

    /// The value of `key`; the last one where the document repeated it.
    pub fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.0.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// The value of `key`, to change.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value<'a>> {
        let at = self.0.iter().rposition(|(k, _)| k == key)?;
        self.0.to_mut().get_mut(at).map(|(_, v)| v)
    }

    /// Sets `key`: in its place where it is there already, else at the end.
    pub fn set(&mut self, key: impl Into<Cow<'a, str>>, value: impl Into<Value<'a>>) {
        let key = key.into();
        let value = value.into();
        match self.get_mut(&key) {
            Some(slot) => *slot = value,
            None => self.0.to_mut().push((key, value)),
        }
    }

    /// Sets each of these entries as [`Object::set`] does, in time linear in their number.
    pub fn set_all(&mut self, entries: impl Iterator<Item = (&'a str, Value<'a>)>) {
        let own = self.0.to_mut();
        // A repeated key's later place counts, as everywhere.
        let mut places: HashMap<Cow<'a, str>, usize> =
            own.iter().enumerate().map(|(place, (key, _))| (key.clone(), place)).collect();
        for (key, value) in entries {
            let place = *places.entry(Cow::Borrowed(key)).or_insert(own.len());
            match own.get_mut(place) {
                Some((_, slot)) => *slot = value,
                None => own.push((Cow::Borrowed(key), value)),
            }
        }
    }

    /// Appends an entry without looking for the key; for building.
    pub fn push(&mut self, key: &'static str, value: impl Into<Value<'a>>) {
        self.0.to_mut().push((Cow::Borrowed(key), value.into()));
    }

    /// Inserts an entry at this place, without looking for the key. Beyond the end it is the last one.
    pub fn insert(&mut self, place: usize, key: impl Into<Cow<'a, str>>, value: Value<'a>) {
        let own = self.0.to_mut();
        own.insert(place.min(own.len()), (key.into(), value));
    }

    /// Removes `key` and returns its value.
    pub fn remove(&mut self, key: &str) -> Option<Value<'a>> {
        let mut removed = None;
        self.0.to_mut().retain_mut(|(k, v)| {
            if k == key {
                removed = Some(std::mem::take(v));
            }
            k != key
        });
        removed
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value<'a>)> {
        self.0.iter().map(|(k, v)| (k.as_ref(), v))
    }

    /// The entries in order, to change the values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Value<'a>)> {
        self.0.to_mut().iter_mut().map(|(k, v)| (&**k, v))
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.write_entries(out, |_, value, out| value.write(out));
    }

    /// Appends the object as [`Value::write`] does. `see` is shown each item of the arrays that stand directly in the object,
    /// with their key and the bytes that were written for it.
    pub fn write_items(&self, out: &mut Vec<u8>, mut see: impl FnMut(&str, &Value<'a>, &[u8])) {
        self.write_entries(out, |key, value, out| {
            let Value::Array(items) = value else { return value.write(out) };
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                let start = out.len();
                item.write(out);
                see(key, item, out.get(start..).unwrap_or_default());
            }
            out.push(b']');
        });
    }

    fn write_entries(&self, out: &mut Vec<u8>, mut write: impl FnMut(&str, &Value<'a>, &mut Vec<u8>)) {
        out.push(b'{');
        for (i, (key, value)) in self.0.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            write_str(key, out);
            out.push(b':');
            write(key, value, out);
        }
        out.push(b'}');
    }
}

impl<'a> Share<'a> for Value<'a> {
    fn share(&'a self) -> Self {
        self.reborrow()
    }
}

impl<'a> Share<'a> for Entry<'a> {
    fn share(&'a self) -> Self {
        (Cow::Borrowed(&self.0), self.1.reborrow())
    }
}

impl<'a> From<List<'a, Entry<'a>>> for Object<'a> {
    fn from(entries: List<'a, Entry<'a>>) -> Self {
        Object(entries)
    }
}

impl<'a> FromIterator<Entry<'a>> for Object<'a> {
    fn from_iter<T: IntoIterator<Item = Entry<'a>>>(entries: T) -> Self {
        Object(entries.into_iter().collect())
    }
}

/// Appends `text` as a JSON string with its quotes. A long text is escaped in pieces: for each, room of six times its length
/// is made in `out`, and an allocator that moves `out` copies that room too, which makes it take memory.
pub fn write_str(text: &str, out: &mut Vec<u8>) {
    if text.len() <= ESCAPED_SIZE_MAX {
        return json_escape_simd::escape_into(text, out);
    }
    write_pieces(text, out);
}

/// The longest text that is escaped in one go. Nearly all are far shorter.
const ESCAPED_SIZE_MAX: usize = 32 * 1024;

#[inline(never)] // rare, and not to be in the way of the short ones
fn write_pieces(text: &str, out: &mut Vec<u8>) {
    let mut rest = text;
    out.push(b'"');
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(piece_end(rest));
        // Each piece comes with its quotes: the first takes the place of the byte before it, which is put back, and the
        // last one is dropped.
        let before = out.pop().unwrap_or(b'"');
        let at = out.len();
        json_escape_simd::escape_into(piece, out);
        out.pop();
        if let Some(quote) = out.get_mut(at) {
            *quote = before;
        }
        rest = after;
    }
    out.push(b'"');
}

/// Where the first piece of a long text ends: between two characters.
fn piece_end(text: &str) -> usize {
    let end = text.len().min(ESCAPED_SIZE_MAX);
    (0..=end).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(end)
}

/// Appends `n` as JSON.
pub fn write_u64(n: u64, out: &mut Vec<u8>) {
    match u8::try_from(n) {
        // An event's index, nearly always.
        Ok(digit @ 0..=9) => out.push(b'0' + digit),
        _ => Number::Uint(n).write(out),
    }
}

impl From<bool> for Value<'_> {
    fn from(b: bool) -> Self {
        Value::Bool(b)
    }
}

impl From<u64> for Value<'_> {
    fn from(n: u64) -> Self {
        Value::Number(Number::Uint(n))
    }
}

impl From<i64> for Value<'_> {
    fn from(n: i64) -> Self {
        Value::Number(Number::Int(n))
    }
}

impl From<f64> for Value<'_> {
    fn from(n: f64) -> Self {
        Value::Number(Number::Float(n))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::String(Cow::Borrowed(text))
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Value::String(Cow::Owned(text))
    }
}

impl<'a> From<Cow<'a, str>> for Value<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        Value::String(text)
    }
}

impl<'a> From<Vec<Value<'a>>> for Value<'a> {
    fn from(items: Vec<Value<'a>>) -> Self {
        Value::Array(items.into())
    }
}

impl<'a> From<Object<'a>> for Value<'a> {
    fn from(object: Object<'a>) -> Self {
        Value::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str) -> String {
        let mut document = Document::from(text.as_bytes().to_vec());
        let shared = document.parse().expect(text);
        let mut bytes = text.as_bytes().to_vec();
        let owned = parse(&mut bytes).expect(text);
        assert_eq!(shared, owned);
        assert_eq!(shared.to_json(), owned.clone().into_owned().to_json());
        assert_eq!(owned.reborrow(), shared.into_owned());
        owned.to_json()
    }

    #[test]
    fn sixty_keys_keep_their_order() {
        let keys: Vec<String> = (0..60).map(|i| format!("\"k{}\":{i}", (i * 37) % 60)).collect();
        let text = format!("{{{}}}", keys.join(","));
        assert_eq!(round_trip(&text), text);
    }

    #[test]
    fn a_long_text_is_escaped_like_a_short_one() {
        for unit in ["a", "\"", "\\", "é", "\u{1}x", "😀"] {
            for count in [ESCAPED_SIZE_MAX - 1, ESCAPED_SIZE_MAX, ESCAPED_SIZE_MAX + 1, 3 * ESCAPED_SIZE_MAX]
            {
                let text = unit.repeat(count / unit.len() + 1);
                let mut out = b"[".to_vec();
                write_str(&text, &mut out);
                let read = parse(out.get_mut(1..).unwrap()).unwrap();
                assert_eq!(read.as_str(), Some(text.as_str()), "{unit:?} {count}");
                let mut short = Vec::new();
                write_str(unit, &mut short);
                let mut long = Vec::new();
                write_str(&text, &mut long);
                assert_eq!(long.len(), (short.len() - 2) * (count / unit.len() + 1) + 2);
            }
        }
    }

    #[test]
    fn values_round_trip() {
        for text in [
            "null",
            "true",
            "-1",
            "18446744073709551615",
            "[-0.0,18446744073709551616,1e+30,-9223372036854775809,123456789012345678901234567890]",
            "1.5",
            "\"a\\\"\\\\\\n\\u0001é😀\"",
            "[]",
            "{}",
            "[1,[2,{\"a\":[]}],null]",
            "{\"a\":1,\"a\":2}",
        ] {
            assert_eq!(round_trip(text), text);
        }
        assert_eq!(round_trip("1e2"), "100.0");
        assert_eq!(round_trip("\"\\u00e9\\/\""), "\"é/\"");
        assert_eq!(round_trip("{\"\\ud83d\":\"\\ud83d\\ude00\\ude00\"}"), "{\"\u{fffd}\":\"😀\u{fffd}\"}");
    }

    #[test]
    fn an_integer_beyond_64_bits_is_a_number() {
        let mut bytes = b"{\"a\":18446744073709551616}".to_vec();
        let value = parse(&mut bytes).unwrap();
        let integer = value.get("a").unwrap();
        assert_eq!((integer.as_f64(), integer.as_u64()), (Some(18446744073709551616.0), None));
        assert!(parse(&mut "9".repeat(400).into_bytes()).is_err());
    }

    #[test]
    fn strings_are_escaped_as_serde_json_does() {
        let all: String = (0..=0x17f).filter_map(char::from_u32).chain("é😀\u{2028}".chars()).collect();
        let mut texts = vec![all.clone()];
        // Each character at each place of a word, and with each neighbour.
        for c in all.chars() {
            texts.extend((0..9).map(|before| format!("{}{c}{c}{}", "x".repeat(before), "y".repeat(9))));
            texts.extend(
                ["\"", "\\", "\u{1}", "!", "]", " ", "\u{7f}"]
                    .map(|other| format!("1{other}{c}4567{c}{other}")),
            );
        }
        for text in texts {
            let mut out = Vec::new();
            write_str(&text, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(&text).unwrap());
        }
    }

    #[test]
    fn a_repeated_key_reads_as_the_last_one() {
        let mut bytes = b"{\"a\":1,\"a\":2}".to_vec();
        let value = parse(&mut bytes).unwrap();
        assert_eq!(value.get("a").and_then(Value::as_u64), Some(2));
    }

    #[test]
    fn many_entries_are_set_as_one_by_one() {
        let numbered = |(at, key): (usize, char)| (key.to_string(), Value::from(at as u64));
        for (before, entries) in [("", "abab"), ("aba", "bca"), ("ab", ""), ("ab", "zyxab")] {
            let own: Object<'_> =
                before.chars().enumerate().map(numbered).map(|(k, v)| (k.into(), v)).collect();
            let entries: Vec<(String, Value<'_>)> = entries.chars().enumerate().map(numbered).collect();
            let (mut one_by_one, mut at_once) = (own.clone(), own);
            entries.iter().for_each(|(key, value)| one_by_one.set(key.as_str(), value.clone()));
            at_once.set_all(entries.iter().map(|(key, value)| (key.as_str(), value.clone())));
            assert_eq!(at_once, one_by_one, "{before} {entries:?}");
        }
    }

    #[test]
    fn broken_documents_are_errors() {
        for text in
            ["", " ", "{", "[1,]", "{\"a\":}", "nul", "\"\\ud8\"", "\"\\udc0x\"", "1 2", "{a:1}", "\"\n\""]
        {
            assert!(parse(&mut text.as_bytes().to_vec()).is_err(), "{text:?}");
        }
        assert!(parse(&mut b"\"\xff\"".to_vec()).is_err());
    }

    #[test]
    fn nesting_has_a_limit() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(&mut deep(DEPTH_MAX - 1).into_bytes()).is_ok());
        let error = parse(&mut deep(1000).into_bytes()).unwrap_err();
        assert!(error.to_string().contains("deeper"), "{error}");
    }

    #[test]
    fn a_parser_is_reusable_after_an_error() {
        let mut parser = Parser::default();
        assert!(parser.read(&mut b"{".to_vec(), |_| ()).is_err());
        let mut bytes = b"[1]".to_vec();
        assert_eq!(parser.read(&mut bytes, Value::from_tape).unwrap().to_json(), "[1]");
    }

    #[test]
    fn a_change_leaves_what_is_shared_alone() {
        const TEXT: &str = r#"{"a":[1,{"b":[2,3]}],"c":{"d":4},"e":5}"#;
        let mut document = Document::from(TEXT.as_bytes().to_vec());
        let original = document.parse().unwrap();
        let mut view = original.reborrow();
        let object = view.as_object_mut().unwrap();
        let Some(Value::Array(items)) = object.get_mut("a") else { panic!("no array") };
        items.to_mut()[1].as_object_mut().unwrap().set("b", "x");
        items.to_mut().push(true.into());
        object
            .get_mut("c")
            .unwrap()
            .as_object_mut()
            .unwrap()
            .iter_mut()
            .for_each(|(_, value)| *value = 0u64.into());
        object.remove("e");
        assert_eq!(view.to_json(), r#"{"a":[1,{"b":"x"},true],"c":{"d":0}}"#);
        assert_eq!(original.to_json(), TEXT);
    }

    #[test]
    fn set_keeps_the_place_of_a_key() {
        let mut bytes = b"{\"a\":1,\"b\":2}".to_vec();
        let mut value = parse(&mut bytes).unwrap();
        let object = value.as_object_mut().unwrap();
        object.set("a", "x");
        object.set("c", true);
        assert_eq!(object.remove("b"), Some(Value::from(2u64)));
        assert_eq!(value.to_json(), "{\"a\":\"x\",\"c\":true}");
    }
}
