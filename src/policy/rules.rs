//! The rules for one upstream, and their verdict on a request.

use std::borrow::Cow;

use super::decode::{shorten_paths, squeeze};
use super::search::{Needles, SearchResult};
use crate::json::Value;
use crate::lua_pattern::{PatternSearch, check_pattern};
use crate::route;
use crate::shown::ShownText;

/// Requests that one upstream must never get. A request that one rule matches is kept back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NeverTo {
    /// The upstream's name.
    pub upstream: String,
    /// Paths of files and folders: requests in which one of them stands. Case does not matter.
    pub paths: Vec<String>,
    /// Texts: requests in which one of them stands. Case and blanks do not matter.
    pub texts: Vec<String>,
    /// Lua patterns: requests in which a text matches one of them.
    pub patterns: Vec<String>,
    /// Names of the owners of clients' keys, with `*` as a wildcard: requests of these clients.
    pub keys: Vec<String>,
    /// Names of headers, in lower case, and values with `*` as a wildcard: requests with such a header. Case does not matter,
    /// and each value counts of a header that comes more than once or lists several.
    pub headers: Vec<(String, String)>,
}

/// A request, as far as the rules look at it.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "it holds a function")]
pub struct RequestFacts<'r> {
    /// The body.
    pub body: &'r Value<'r>,
    /// Texts that go to the upstream beside the body: the query, and the values of headers.
    pub beside: &'r [&'r str],
    /// The name of the owner of the client's key.
    pub user: Option<&'r str>,
    /// True if the request has a part beside the body that is not text.
    pub is_opaque: bool,
    /// All values of a header.
    pub header: &'r dyn Fn(&str) -> Vec<String>,
    /// True once nobody waits for the verdict any more. Then the search stops, and the request counts as one that cannot be
    /// checked.
    pub is_stopped: &'r dyn Fn() -> bool,
}

/// The rule that keeps a request back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// One of `paths`.
    Path,
    /// One of `match`.
    Match,
    /// One of `keys`.
    Key,
    /// One of `header`.
    Header,
    /// This pattern of `match` takes too long on the request.
    Slow(String),
    /// The request has a part that cannot be searched.
    Unchecked,
}

impl Held {
    /// Its words in the error for the client and in the log. They do not repeat the text that was found.
    pub fn words(&self) -> Cow<'static, str> {
        match self {
            Held::Path => "a path in it is listed in `paths`".into(),
            Held::Match => "a text in it is listed in `match`".into(),
            Held::Key => "the client's key is listed in `keys`".into(),
            Held::Header => "a header of it is listed in `header`".into(),
            Held::Slow(pattern) => {
                let shown = ShownText::new(pattern);
                format!("the pattern '{shown}' of `match` takes too long on it, so it may hold what must not leave").into()
            }
            Held::Unchecked => {
                "it has a part that cannot be searched, such as a PDF file, so it may hold what must not leave".into()
            }
        }
    }
}

impl NeverTo {
    /// The rule that keeps a request from the upstream. `None`: it may go there.
    pub fn held(&self, facts: &RequestFacts<'_>) -> Option<Held> {
        if facts.user.is_some_and(|user| self.keys.iter().any(|key| route::matches(key, user))) {
            return Some(Held::Key);
        }
        let is_listed = |(name, pattern): &(String, String)| {
            let pattern = pattern.to_lowercase();
            let is_one = |value: &str| route::matches(&pattern, value.trim());
            let values = (facts.header)(name).into_iter().map(|value| value.to_lowercase());
            values.into_iter().any(|value| is_one(&value) || value.split(',').any(is_one))
        };
        if self.headers.iter().any(is_listed) {
            return Some(Held::Header);
        }
        let needles = self.needles();
        if facts.is_opaque && !needles.is_empty() {
            return Some(Held::Unchecked);
        }
        needles.find_in(facts.body, facts.beside, facts.is_stopped).map(|found| match found {
            SearchResult::Path => Held::Path,
            SearchResult::Text | SearchResult::Pattern => Held::Match,
            SearchResult::Slow(index) => Held::Slow(self.patterns.get(index).cloned().unwrap_or_default()),
            SearchResult::Opaque => Held::Unchecked,
        })
    }

    fn needles(&self) -> Needles {
        let path = |path: &String| {
            let short = shorten_paths(&squeeze(path, true));
            short.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(&short).to_owned()
        };
        Needles {
            texts: self.texts.iter().map(|text| squeeze(text, true)).collect(),
            paths: self.paths.iter().map(path).collect(),
            patterns: self.patterns.clone(),
        }
    }

    /// The reason why a text cannot be a rule, if there is one: it would match every request.
    pub fn fault_of(text: &str) -> Option<&'static str> {
        squeeze(text, true).is_empty().then_some("an empty text would keep every request back")
    }

    /// The reason why a Lua pattern cannot be a rule, if there is one: it is malformed, or matches an empty text, which every
    /// request has.
    pub fn fault_of_pattern(pattern: &str) -> Option<String> {
        let pattern = pattern.as_bytes();
        if let Err(fault) = check_pattern(pattern) {
            return Some(fault);
        }
        let go_on = || Ok(());
        let search = PatternSearch { text: b"", pattern, anchors: true, not_ending_at: None, go_on: &go_on };
        let is_match = search.run(0).is_ok_and(|found| found.is_some());
        is_match.then(|| "it matches an empty text, so it would keep every request back".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;
    use crate::json;
    use crate::lua_pattern::literal_beginning;

    fn rules() -> NeverTo {
        NeverTo {
            upstream: "cloud".into(),
            paths: vec!["/srv/secret/".into()],
            texts: vec!["BEGIN PRIVATE KEY".into()],
            patterns: vec!["AKIA%u%u%u%u%d+".into()],
            keys: vec!["intern-*".into()],
            headers: vec![("x-project".into(), "secret*".into())],
        }
    }

    fn held(body: &str) -> Option<Held> {
        let mut bytes = body.as_bytes().to_vec();
        let body = json::parse(&mut bytes).unwrap();
        rules().held(&facts_of(&body))
    }

    fn facts_of<'r>(body: &'r Value<'r>) -> RequestFacts<'r> {
        let (header, is_stopped) = (&|_: &str| Vec::new(), &|| false);
        RequestFacts { body, beside: &[], user: None, is_opaque: false, header, is_stopped }
    }

    fn quoted(text: &str) -> String {
        Value::from(text).to_json()
    }

    /// A text in the ways in which it may be written.
    fn written(text: &str) -> Vec<String> {
        let json = |text: &str| quoted(text).trim_matches('"').to_owned();
        let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let percent: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let nested = format!("{{\"a\":{}}}", quoted(text));
        let percent_twice = percent.replace('%', "%25");
        let percent_nested = quoted(&format!("{percent}\""));
        // As the API of GitHub writes a file: base64 in short lines, within JSON.
        let base64 = STANDARD.encode(format!("{text} and more"));
        let pieces: Vec<&str> =
            base64.as_bytes().chunks(20).map(|piece| std::str::from_utf8(piece).unwrap()).collect();
        let lines = quoted(&format!("{{\"content\":{}}}", quoted(&pieces.join("\n"))));
        vec![
            text.to_owned(),
            text.to_lowercase().replace("akia", "AKIA").replace("abcd", "ABCD"),
            text.replace(' ', "\n   "),
            nested.clone(),
            quoted(&nested),
            quoted(&quoted(&nested)),
            json(&units),
            units.clone(),
            json(&json(&units)),
            percent,
            STANDARD.encode(text),
            format!("see {}!", STANDARD.encode(format!("ab {text} cd"))),
            URL_SAFE_NO_PAD.encode(format!("ÿÿÿ {text}")),
            STANDARD.encode(STANDARD.encode(format!("{text} more"))),
            STANDARD.encode(&nested),
            percent_twice,
            text.replace(' ', "+"),
            quoted(&quoted(&percent_nested)),
            lines,
        ]
    }

    /// A request with a text at each place where one can stand.
    fn places(text: &str) -> Vec<String> {
        let text = &quoted(text);
        let data = &quoted(&STANDARD.encode(text));
        let image = &quoted(&STANDARD.encode([b"\x89PNG\r\n\x1a\n", text.as_bytes()].concat()));
        vec![
            format!(r#"{{"system":{text},"messages":[]}}"#),
            format!(r#"{{"system":[{{"type":"text","text":{text}}}]}}"#),
            format!(r#"{{"messages":[{{"role":"user","content":{text}}}]}}"#),
            format!(
                r#"{{"messages":[{{"role":"assistant","content":[{{"type":"tool_use","id":"t","name":"Read","input":{{"a":[{{"b":{text}}}]}}}}]}}]}}"#
            ),
            format!(
                r#"{{"messages":[{{"role":"assistant","content":[{{"type":"tool_use","id":"t","name":"Read","input":{{{text}:1}}}}]}}]}}"#
            ),
            format!(
                r#"{{"messages":[{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t","content":{text}}}]}}]}}"#
            ),
            format!(
                r#"{{"messages":[{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t","content":[{{"type":"text","text":{text}}}]}}]}}]}}"#
            ),
            format!(
                r#"{{"messages":[{{"role":"user","content":[{{"type":"document","title":{text},"source":{{"type":"text","data":"x"}}}}]}}]}}"#
            ),
            format!(
                r#"{{"messages":[{{"role":"user","content":[{{"type":"document","source":{{"type":"text","data":{text}}}}}]}}]}}"#
            ),
            format!(
                r#"{{"messages":[{{"role":"user","content":[{{"type":"document","source":{{"type":"base64","media_type":"text/plain","data":{data}}}}}]}}]}}"#
            ),
            format!(
                r#"{{"messages":[{{"role":"user","content":[{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":{image}}}}}]}}]}}"#
            ),
            format!(
                r#"{{"messages":[{{"role":"user","content":[{{"type":"image","source":{{"type":"url","url":{text}}}}}]}}]}}"#
            ),
            format!(
                r#"{{"messages":[{{"role":"assistant","content":[{{"type":"thinking","thinking":{text},"signature":""}}]}}]}}"#
            ),
            format!(
                r#"{{"messages":[{{"role":"user","content":[{{"type":"search_result","source":{text},"title":"x","content":[]}}]}}]}}"#
            ),
            format!(r#"{{"tools":[{{"name":"n","description":{text},"input_schema":{{}}}}]}}"#),
            format!(
                r#"{{"tools":[{{"name":"n","input_schema":{{"properties":{{"a":{{"enum":[{text}]}}}}}}}}]}}"#
            ),
            format!(r#"{{"metadata":{{"user_id":{text}}}}}"#),
            format!(r#"{{"stop_sequences":[{text}]}}"#),
            format!(r#"{{"odd":{{"name":{text},"type":{text},"id":{text}}}}}"#),
        ]
    }

    /// The number of places, times the number of ways to write a text.
    const FULL_COUNT: usize = 19 * 19;

    #[test]
    fn a_text_is_found_wherever_and_however_it_is_written() {
        let mut count = 0;
        for (text, rule) in [
            ("/srv/secret/plan.txt", Held::Path),
            ("file:///srv//x/../secret", Held::Path),
            ("-----BEGIN PRIVATE KEY-----", Held::Match),
            ("id AKIAABCD1234 end", Held::Match),
        ] {
            // The first text in each way at each place; of the others each way at some place.
            for (way, written) in written(text).into_iter().enumerate() {
                let is_sampled = |at: &usize| count < FULL_COUNT || at % 7 == way % 7;
                let bodies: Vec<String> = places(&written);
                let at: Vec<usize> = (0..bodies.len()).filter(is_sampled).collect();
                for body in at.into_iter().filter_map(|at| bodies.get(at)) {
                    assert_eq!(held(body).as_ref(), Some(&rule), "{text}: {body}");
                    count += 1;
                }
            }
        }
        assert!(count > FULL_COUNT, "{count}");
    }

    #[test]
    fn a_text_split_over_blocks_is_found() {
        for text in ["-----BEGIN PRIVATE KEY-----", "/srv/secret/a", "AKIAABCD1234"] {
            for at in 3..text.len() - 4 {
                let (one, two) = text.split_at(at);
                let (one, two) = (quoted(one), quoted(two));
                for body in [
                    format!(
                        r#"{{"messages":[{{"role":"user","content":[{{"type":"text","text":{one}}},{{"type":"text","text":{two},"cache_control":{{"type":"ephemeral"}}}}]}}]}}"#
                    ),
                    format!(
                        r#"{{"messages":[{{"role":"user","content":{one}}},{{"role":"user","content":{two}}}]}}"#
                    ),
                    format!(
                        r#"{{"messages":[{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t","content":[{{"type":"text","text":{one}}}]}},{{"type":"text","text":{two}}}]}}]}}"#
                    ),
                ] {
                    // Neither piece alone is the text.
                    assert!(held(&body).is_some(), "{body}");
                }
            }
        }
    }

    #[test]
    fn other_requests_may_go() {
        for body in [
            r#"{"messages":[{"role":"user","content":"Write about private keys and /srv/public."}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw0KGgoAAAANSUhEUg=="}}]}]}"#,
            r#"{"messages":[{"role":"user","content":[{"type":"document","source":{"type":"base64","media_type":"text/plain","data":"aGVsbG8="}}]}]}"#,
            r#"{"messages":[{"role":"user","content":"C:\\Users\\me\\x and \\\\server\\share \\n"}],"x":[1,2.5,null,true]}"#,
            "{}",
        ] {
            assert_eq!(held(body), None, "{body}");
        }
    }

    #[test]
    fn what_cannot_be_searched_is_kept_back() {
        let pdf = format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"document","source":{{"type":"base64","media_type":"application/pdf","data":{}}}}}]}}]}}"#,
            quoted(&STANDARD.encode(b"%PDF-1.7\xff\xfe\x00"))
        );
        assert_eq!(held(&pdf), Some(Held::Unchecked));
        let slow = NeverTo { patterns: vec![".-.-.-.-b".into()], ..NeverTo::default() };
        let text = Value::object([("a", "a".repeat(2000).into())]);
        let facts = facts_of(&text);
        let why = slow.held(&facts).unwrap();
        assert_eq!(why, Held::Slow(".-.-.-.-b".into()));
        assert!(why.words().contains("'.-.-.-.-b' of `match` takes too long"), "{}", why.words());
        let broken = NeverTo { patterns: vec!["[a".into()], ..NeverTo::default() };
        assert_eq!(broken.held(&facts), Some(Held::Slow("[a".into())));
        let data = STANDARD.encode(b"\xff\xfe\x00");
        for part in [
            format!(r#"{{"type":"input_audio","input_audio":{{"data":"{data}","format":"wav"}}}}"#),
            format!(r#"{{"type":"file","file":{{"filename":"a.pdf","file_data":"{data}"}}}}"#),
            format!(r#"{{"type":"input_file","file_data":"data:application/pdf;base64,{data}"}}"#),
            format!(
                r#"{{"type":"document","source":{{"type":"url","url":"data:application/pdf;base64,{data}"}}}}"#
            ),
        ] {
            let body = format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#);
            assert_eq!(held(&body), Some(Held::Unchecked), "{body}");
            let text = body.replace(&data, &STANDARD.encode("hello there"));
            let expected = body.contains("application/pdf").then_some(Held::Unchecked);
            assert_eq!(held(&text), expected, "{text}");
        }
        let empty = Value::Null;
        let recording = RequestFacts { is_opaque: true, ..facts_of(&empty) };
        assert_eq!(rules().held(&recording), Some(Held::Unchecked));
        let by_key = NeverTo { keys: vec!["a".into()], ..NeverTo::default() };
        assert_eq!(by_key.held(&recording), None, "no rule looks at the text");
    }

    #[test]
    fn a_search_that_nobody_waits_for_stops() {
        let (short, long) = (Value::from("a b"), Value::from("a b ".repeat(1 << 20)));
        let held = |body| {
            let asked = std::cell::Cell::new(0);
            let is_stopped = &|| asked.replace(asked.get() + 1) == 0;
            let held = rules().held(&RequestFacts { is_stopped, ..facts_of(body) });
            (held, asked.get())
        };
        assert_eq!(held(&long), (Some(Held::Unchecked), 1));
        assert_eq!(held(&short), (None, 0), "it is as good as done");
    }

    #[test]
    fn clients_and_headers_are_kept_back() {
        let body = Value::Null;
        let facts = |user, header| RequestFacts { beside: &["beta=true"], user, header, ..facts_of(&body) };
        let none = |_: &str| Vec::new();
        assert_eq!(rules().held(&facts(Some("intern-7"), &none)), Some(Held::Key));
        assert_eq!(rules().held(&facts(Some("anna"), &none)), None);
        for (values, expected) in [
            (&["secret-9"][..], Some(Held::Header)),
            (&["open", "Secret-9"], Some(Held::Header)),
            (&["open , SECRET"], Some(Held::Header)),
            (&["open", "my secret"], None),
            (&[], None),
        ] {
            let project = |name: &str| match name == "x-project" {
                true => values.iter().map(|value| (*value).to_owned()).collect(),
                false => Vec::new(),
            };
            let facts = RequestFacts { header: &project, ..facts_of(&body) };
            assert_eq!(rules().held(&facts), expected, "{values:?}");
        }
        let beside = RequestFacts { beside: &["x=/srv/secret"], ..facts(None, &none) };
        assert_eq!(rules().held(&beside), Some(Held::Path));
        assert!(NeverTo::fault_of(" \n").is_some() && NeverTo::fault_of("a").is_none());
    }

    #[test]
    fn a_file_is_known_by_its_bytes_and_its_label() {
        let document = |kind: &str, data: &str| {
            format!(
                r#"{{"messages":[{{"role":"user","content":[{{"type":"document","source":{{"type":"{kind}",{data}}}}}]}}]}}"#
            )
        };
        let pdf = &STANDARD.encode("%PDF-1.4\n1 0 obj<<>>stream BT <424547494e> Tj ET endstream");
        let rtf = &STANDARD.encode("{\\rtf1 \\'42\\'45}");
        let png = &STANDARD.encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR");
        let text = &STANDARD.encode("hello there");
        let lines = pdf.as_bytes().chunks(16).map(|line| std::str::from_utf8(line).unwrap());
        let lines = lines.collect::<Vec<_>>().join("\\n");
        for (body, expected) in [
            (document("base64", &format!(r#""media_type":"application/pdf","data":"{pdf}""#)), true),
            (document("base64", &format!(r#""media_type":"text/plain","data":"{pdf}""#)), true),
            (document("base64", &format!(r#""media_type":"text/plain","data":"{rtf}""#)), true),
            (document("base64", &format!(r#""media_type":"image/png","data":"{pdf}""#)), true),
            (document("base64", &format!(r#""media_type":"image/png","data":"{text}""#)), true),
            (document("base64", r#""media_type":"image/png","data":"!""#), true),
            (document("base64", &format!(r#""media_type":"text/plain","data":"{png}""#)), true),
            (document("base64", &format!(r#""media_type":"image/png","data":"{png}""#)), false),
            (document("base64", &format!(r#""media_type":"text/plain","data":"{text}""#)), false),
            (document("base64", &format!(r#""media_type":"application/json","data":"{text}""#)), false),
            (
                document(
                    "base64",
                    &format!(r#""media_type":"application/pdf","media_type":"text/plain","data":"{text}""#),
                ),
                true,
            ),
            (document("text", r#""media_type":"application/pdf","data":"hello""#), true),
            (document("text", r#""media_type":"text/plain","data":"%PDF-1.4 hello""#), true),
            (document("text", r#""media_type":"text/plain","data":"hello""#), false),
            (document("url", &format!(r#""url":"DATA:application/pdf;name=a;BASE64,{text}""#)), true),
            (document("url", r#""url":"data:application/pdf,%25PDF-1.4""#), true),
            (document("url", &format!(r#""url":"data:image/png;base64,{png}""#)), false),
            (format!(r#"{{"messages":[{{"role":"user","content":"see {pdf}"}}]}}"#), true),
            (format!(r#"{{"messages":[{{"role":"user","content":"{lines}"}}]}}"#), true),
            (r#"{"messages":[{"role":"user","content":"data: {\"a\":1, 2}"}]}"#.to_owned(), false),
            (
                format!(
                    r#"{{"content":[{{"type":"resource","resource":{{"mimeType":"application/pdf","blob":"{text}"}}}}]}}"#
                ),
                true,
            ),
            (format!(r#"{{"content":[{{"type":"image","data":"{png}","mimeType":"image/png"}}]}}"#), false),
            (r#"{"input":{"data":"main","mime_type":"text/x-c"}}"#.to_owned(), false),
            (format!(r#"{{"model":"m","file":"{}"}}"#, STANDARD.encode("RIFF....WAVEfmt ")), true),
            (format!(r#"{{"model":"m","file":"{}"}}"#, STANDARD.encode(b"\xff\xfb\x90")), true),
            (format!(r#"{{"model":"m","file":"{text}"}}"#), false),
        ] {
            assert_eq!(held(&body), expected.then_some(Held::Unchecked), "{body}");
        }
    }

    #[test]
    fn a_plus_of_a_rule_counts() {
        let rules = NeverTo { texts: vec!["C++".into(), "a b".into()], ..NeverTo::default() };
        for (text, expected) in [
            ("see c++", true),
            ("see c", false),
            ("c+", false),
            ("a+b", true),
            ("A%2BB", true),
            ("a%20b", true),
        ] {
            let body = Value::from(text);
            assert_eq!(rules.held(&facts_of(&body)).is_some(), expected, "{text}");
        }
    }

    #[test]
    fn a_pattern_that_cannot_be_a_rule_is_named() {
        for (pattern, fault) in [
            ("%", "ends with '%'"),
            ("a[b", "missing ']'"),
            ("(a", "unfinished capture"),
            ("a)", "invalid pattern capture"),
            ("%bx", "missing arguments"),
            ("%fa", "missing '['"),
            ("(a)%2", "invalid capture index %2"),
            (".*", "matches an empty text"),
            ("x-", "matches an empty text"),
            ("^$", "matches an empty text"),
        ] {
            let found = NeverTo::fault_of_pattern(pattern).unwrap_or_default();
            assert!(found.contains(fault), "{pattern}: {found}");
        }
        for (pattern, beginning) in [
            ("AKIA%u+", "AKIA"),
            ("AKIA*", "AKI"),
            ("ab-c", "a"),
            ("ab+", "ab"),
            ("^ab", ""),
            ("%%a", ""),
            ("", ""),
        ] {
            assert_eq!(literal_beginning(pattern.as_bytes()), beginning.as_bytes(), "{pattern}");
        }
        for pattern in ["AKIA%u+", "(a)%1", "%b()", "%f[%w]key", "[]]", "[^%]]x", "a-b", "^x", "()a", "%%"] {
            assert_eq!(NeverTo::fault_of_pattern(pattern), None, "{pattern}");
        }
    }
}
