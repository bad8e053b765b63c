//! Where the parts of a document stand in its bytes, so that one of them can be replaced or removed and all others stay
//! as they are, byte for byte.
//!
//! Call it only on a document that the parser has accepted: it finds the ends of values and does not check them. On other
//! bytes it finds fewer parts, and never reads beyond the end.

use std::borrow::Cow;
use std::ops::Range;

use super::{parse, write_str};

/// A member of an object, by its places in the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The key, with its quotes.
    pub key: Range<usize>,
    /// The value.
    pub value: Range<usize>,
}

impl Member {
    /// The key and the value together.
    pub fn whole(&self) -> Range<usize> {
        self.key.start..self.value.end
    }
}

/// One replacement of a part of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// The place of the part.
    pub place: Range<usize>,
    /// The bytes that take its place.
    pub bytes: Vec<u8>,
}

/// The members of the object at `place`, in their order; empty if there is no object.
pub fn members(document: &[u8], place: Range<usize>) -> Vec<Member> {
    let mut found = Vec::new();
    let Some(mut at) = enter(document, &place, b'{') else { return found };
    loop {
        let start = skip_blanks(document, at);
        let end = end_of_value(document, start);
        let colon = skip_blanks(document, end);
        if document.get(start) != Some(&b'"') || document.get(colon) != Some(&b':') {
            return found;
        }
        let value = skip_blanks(document, colon + 1);
        let value_end = end_of_value(document, value);
        found.push(Member { key: start..end, value: value..value_end });
        let next = skip_blanks(document, value_end);
        if document.get(next) != Some(&b',') || next >= place.end {
            return found;
        }
        at = next + 1;
    }
}

/// The places of the items of the array at `place`; empty if there is no array.
pub fn items(document: &[u8], place: Range<usize>) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let Some(mut at) = enter(document, &place, b'[') else { return found };
    loop {
        let start = skip_blanks(document, at);
        let end = end_of_value(document, start);
        if end <= start {
            return found;
        }
        found.push(start..end);
        let next = skip_blanks(document, end);
        if document.get(next) != Some(&b',') || next >= place.end {
            return found;
        }
        at = next + 1;
    }
}

/// The text of the string at `place`. `None`: there is no string.
pub fn text(document: &[u8], place: Range<usize>) -> Option<Cow<'_, str>> {
    let quoted = document.get(place)?;
    let inner = quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if memchr::memchr(b'\\', inner).is_none() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    let mut bytes = quoted.to_vec();
    let value = parse(&mut bytes).ok()?;
    value.as_str().map(|text| Cow::Owned(text.to_owned()))
}

/// The value of the last member of this name, as parsers read a repeated key.
pub fn last<'m>(document: &[u8], members: &'m [Member], name: &str) -> Option<&'m Member> {
    members.iter().rev().find(|member| is_named(document, member, name))
}

/// True if the key of a member is this name.
pub fn is_named(document: &[u8], member: &Member, name: &str) -> bool {
    text(document, member.key.clone()).as_deref() == Some(name)
}

/// The document's own place: its value without the blanks around it.
pub fn whole(document: &[u8]) -> Range<usize> {
    let start = skip_blanks(document, 0);
    start..end_of_value(document, start)
}

/// A text as a JSON string.
pub fn string(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_str(text, &mut bytes);
    bytes
}

/// The places to remove, so that the parts of a list for which `is_removed` is true are gone, with the commas that belong
/// to them.
pub fn removals(parts: &[Range<usize>], is_removed: &[bool]) -> Vec<Range<usize>> {
    let last_kept = is_removed.iter().rposition(|removed| !removed);
    let mut found = Vec::new();
    for (at, (part, _)) in parts.iter().zip(is_removed).enumerate().filter(|(_, (_, removed))| **removed) {
        match (last_kept, parts.get(at + 1)) {
            // Up to the next part, so that the comma behind this one goes, too.
            (Some(kept), Some(next)) if at < kept => found.push(part.start..next.start),
            _ => {
                let before = last_kept.and_then(|kept| parts.get(kept)).map(|kept| kept.end);
                let end = parts.last().map_or(part.end, |last| last.end);
                found.push(before.unwrap_or(part.start)..end);
                break;
            }
        }
    }
    found
}

/// The document with these replacements. Places must not overlap; one that lies within another is ignored.
pub fn splice(document: &[u8], mut splices: Vec<Splice>) -> Vec<u8> {
    splices.sort_by_key(|splice| (splice.place.start, std::cmp::Reverse(splice.place.end)));
    let mut out = Vec::with_capacity(document.len());
    let mut at = 0;
    for Splice { place, bytes } in splices {
        if place.start < at {
            continue;
        }
        out.extend_from_slice(document.get(at..place.start).unwrap_or_default());
        out.extend_from_slice(&bytes);
        at = place.end;
    }
    out.extend_from_slice(document.get(at..).unwrap_or_default());
    out
}

/// The document with `value`, as a JSON string, in the place of the value of the outermost object's member `key`. A
/// repeated member gets it every time, since servers differ in which of them they take. `None`: the document is not an
/// object, or has no such member.
pub fn splice_member(document: &[u8], key: &str, value: &str) -> Option<Vec<u8>> {
    let found = members(document, whole(document));
    let named = found.into_iter().filter(|member| is_named(document, member, key));
    let splices: Vec<Splice> =
        named.map(|member| Splice { place: member.value, bytes: string(value) }).collect();
    (!splices.is_empty()).then(|| splice(document, splices))
}

/// The place behind the opening bracket of a list.
fn enter(document: &[u8], place: &Range<usize>, bracket: u8) -> Option<usize> {
    (document.get(place.start) == Some(&bracket)).then_some(place.start + 1)
}

fn skip_blanks(document: &[u8], at: usize) -> usize {
    let rest = document.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// The end of the string that begins at `at`.
fn end_of_string(document: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', document.get(at..).unwrap_or_default()) {
        at += found;
        match document.get(at) {
            Some(b'"') => return at + 1,
            // The byte after the backslash belongs to the escape.
            _ => at += 2,
        }
    }
    document.len()
}

/// The end of the value that begins at `at`. Walks without recursion, whatever the nesting.
fn end_of_value(document: &[u8], at: usize) -> usize {
    let (mut at, mut depth) = (at, 0usize);
    while let Some(byte) = document.get(at) {
        match byte {
            b'"' => at = end_of_string(document, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return at;
        }
    }
    document.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(document: &str) -> Vec<(String, String)> {
        let bytes = document.as_bytes();
        let part = |place: Range<usize>| String::from_utf8(bytes[place].to_vec()).unwrap();
        members(bytes, whole(bytes)).into_iter().map(|found| (part(found.key), part(found.value))).collect()
    }

    #[test]
    fn members_and_items_are_found_with_any_spacing() {
        let found = texts(" {\"a\" :1 , \"b\\\"\":[1,\"]\"], \"a\":{\"x\":\"}\"}\n,\"c\":1e2}\n");
        let expected =
            [("\"a\"", "1"), ("\"b\\\"\"", "[1,\"]\"]"), ("\"a\"", "{\"x\":\"}\"}"), ("\"c\"", "1e2")];
        assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let list = b"[ 1, \"a,]\\\\\" ,{\"b\":[2]},[ ] ]";
        let parts: Vec<&[u8]> = items(list, whole(list)).into_iter().map(|place| &list[place]).collect();
        assert_eq!(parts, [&b"1"[..], b"\"a,]\\\\\"", b"{\"b\":[2]}", b"[ ]"]);
        for empty in ["{}", "[]", "{ }", "[ ]", "1", "", "\"a\"", "null"] {
            assert!(texts(empty).is_empty(), "{empty}");
            assert!(items(empty.as_bytes(), whole(empty.as_bytes())).is_empty(), "{empty}");
        }
    }

    #[test]
    fn broken_documents_end_somewhere() {
        let document = r#"{"a":[1,{"b":"c\"d"}],"e":"f"}"#;
        for end in 0..document.len() {
            let cut = &document.as_bytes()[..end];
            for found in members(cut, whole(cut)) {
                items(cut, found.value.clone());
                text(cut, found.value);
            }
        }
        for odd in ["{\"a\"}", "{1:2}", "[,]", "}", "{\"a\":1 2}", "\"\\", "[[[["] {
            members(odd.as_bytes(), whole(odd.as_bytes()));
            items(odd.as_bytes(), whole(odd.as_bytes()));
        }
    }

    #[test]
    fn strings_are_read_with_their_escapes() {
        for (json, expected) in [
            (r#""a""#, Some("a")),
            (r#""mod\u0065l\n""#, Some("model\n")),
            ("1", None),
            ("\"", None),
            ("", None),
        ] {
            assert_eq!(text(json.as_bytes(), 0..json.len()).as_deref(), expected, "{json}");
        }
    }

    #[test]
    fn parts_are_removed_with_their_commas() {
        let list = b"[ 1 , 2, 3 ]";
        let places = items(list, whole(list));
        for (removed, expected) in [
            ([false, false, false], "[ 1 , 2, 3 ]"),
            ([true, false, false], "[ 2, 3 ]"),
            ([false, true, false], "[ 1 , 3 ]"),
            ([false, false, true], "[ 1 , 2 ]"),
            ([true, true, false], "[ 3 ]"),
            ([false, true, true], "[ 1 ]"),
            ([true, false, true], "[ 2 ]"),
            ([true, true, true], "[  ]"),
        ] {
            let splices = removals(&places, &removed);
            let splices = splices.into_iter().map(|place| Splice { place, bytes: Vec::new() }).collect();
            assert_eq!(String::from_utf8(splice(list, splices)).unwrap(), expected, "{removed:?}");
        }
    }

    fn spliced(json: &str) -> Option<String> {
        splice_member(json.as_bytes(), "model", "qwen3 \"a\"").map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn only_the_value_of_the_outermost_member_changes() {
        for json in [
            r#"{"model":@}"#,
            "\u{20}{ \"model\" :\t@ \r\n, \"a\" : 1 }\n",
            r#"{"a":123456789012345678901234567890,"model":@,"b":1.50e+0,"c":"A\/"}"#,
            r#"{"messages":[{"model":"inner","content":"\"model\":\"x\"}"}],"model":@,"meta":{"model":"inner"}}"#,
            r#"{"model":@,"a":[1,2],"model":@,"model":@}"#,
            r#"{"mod\u0065l":@,"\u006D\u006f\u0064\u0065\u006c":@,"Model":"x","model ":"y","models":"z"}"#,
            r#"{"":{},"a\\":[],"b\"model":"x","model":@}"#,
            r#"{"a":"\\","model":@,"b":[[[]],{"model":[]}],"c":true,"d":null,"e":-0}"#,
        ] {
            for old in
                [r#""m""#, r#""a\"b\\""#, r#""""#, "null", "12", "true", r#"{"model":["x",{}]}"#, "[1,[2]]"]
            {
                let came = json.replace('@', old);
                assert_eq!(spliced(&came), Some(json.replace('@', r#""qwen3 \"a\"""#)), "{came}");
            }
        }
    }

    #[test]
    fn a_document_without_the_member_has_nothing_to_replace() {
        for json in [
            "",
            " ",
            "[]",
            "null",
            "1",
            r#""model""#,
            "{}",
            r#"{"a":{"model":"x"}}"#,
            r#"[{"model":"x"}]"#,
            r#"{"models":"x","mode":"y"}"#,
            r#"{"\u006dodelx":"x"}"#,
            r#"{"\ud800":"x"}"#,
        ] {
            assert_eq!(spliced(json), None, "{json}");
        }
    }

    #[test]
    fn a_document_that_is_cut_or_broken_harms_nothing() {
        let whole = r#"{"a":[1,{"b":"\""}],"mod\u0065l":"x","c":{"d":[]}}"#;
        for size in 0..whole.len() {
            let _ = splice_member(&whole.as_bytes()[..size], "model", "y");
            let _ = splice_member(&whole.as_bytes()[size..], "model", "y");
        }
        for json in
            ["{]", r#"{"model"}"#, r#"{"model":}"#, r#"{"model":]}}"#, r#"{"model" "x"}"#, "{\"model\":\"\\"]
        {
            let _ = spliced(json);
        }
    }

    #[test]
    fn a_model_of_any_characters_stays_one_string() {
        for model in ["", "\"", "\\", "a\nb", "größe", "\u{0}"] {
            let bytes = splice_member(br#"{"model":"x","n":1}"#, "model", model).unwrap();
            let tree: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!((tree["model"].as_str(), tree["n"].as_u64()), (Some(model), Some(1)));
        }
    }

    #[test]
    fn deep_and_long_documents_take_linear_time() {
        let deep = format!(r#"{{"a":{}{},"model":"x"}}"#, "[".repeat(200_000), "]".repeat(200_000));
        assert!(spliced(&deep).unwrap().ends_with(r#","model":"qwen3 \"a\""}"#));
        let many = format!(r#"{{{}"z":1}}"#, r#""model":"x","#.repeat(100_000));
        assert_eq!(spliced(&many).unwrap().matches("qwen3").count(), 100_000);
    }
}
