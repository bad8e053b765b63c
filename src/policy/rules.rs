//! The rules for one upstream, and their verdict on a request.

use super::decode::{shorten_paths, squeeze};
use super::search::{Needles, SearchResult};
use crate::json::Value;
use crate::route;

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
    /// Names of headers, in lower case, and values with `*` as a wildcard: requests with such a header.
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
    /// The value of a header.
    pub header: &'r dyn Fn(&str) -> Option<&'r str>,
    /// True once nobody waits for the verdict any more. Then the search stops, and the request counts as one that cannot be
    /// checked.
    pub is_stopped: &'r dyn Fn() -> bool,
}

/// The rule that keeps a request back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// One of `paths`.
    Path,
    /// One of `match`.
    Match,
    /// One of `keys`.
    Key,
    /// One of `header`.
    Header,
    /// The request has a part that cannot be searched.
    Unchecked,
}

impl Held {
    /// Its words in the error for the client and in the log. They do not repeat the text that was found.
    pub fn words(self) -> &'static str {
        match self {
            Held::Path => "a path in it is listed in `paths`",
            Held::Match => "a text in it is listed in `match`",
            Held::Key => "the client's key is listed in `keys`",
            Held::Header => "a header of it is listed in `header`",
            Held::Unchecked => {
                "it has a part that cannot be searched, such as a PDF file, so it may hold what must not leave"
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
            (facts.header)(name).is_some_and(|value| route::matches(pattern, value))
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
            SearchResult::Opaque => Held::Unchecked,
        })
    }

    fn needles(&self) -> Needles {
        let path = |path: &String| {
            let short = shorten_paths(&squeeze(path));
            short.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(&short).to_owned()
        };
        Needles {
            texts: self.texts.iter().map(|text| squeeze(text)).collect(),
            paths: self.paths.iter().map(path).collect(),
            patterns: self.patterns.clone(),
        }
    }

    /// The reason why a text cannot be a rule, if there is one: it would match every request.
    pub fn fault_of(text: &str) -> Option<&'static str> {
        squeeze(text).is_empty().then_some("an empty text would keep every request back")
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;
    use crate::json;

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
        let (header, is_stopped) = (&|_: &str| None, &|| false);
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
        ]
    }

    /// A request with a text at each place where one can stand.
    fn places(text: &str) -> Vec<String> {
        let text = &quoted(text);
        let data = &quoted(&STANDARD.encode(text));
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
                r#"{{"messages":[{{"role":"user","content":[{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":{data}}}}}]}}]}}"#
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
    const FULL_COUNT: usize = 19 * 15;

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
                    assert_eq!(held(body), Some(rule), "{text}: {body}");
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
        assert_eq!(slow.held(&facts), Some(Held::Unchecked));
        let broken = NeverTo { patterns: vec!["[a".into()], ..NeverTo::default() };
        assert_eq!(broken.held(&facts), Some(Held::Unchecked));
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
            assert_eq!(held(&text), None, "{text}");
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
        assert_eq!(rules().held(&facts(Some("intern-7"), &|_| None)), Some(Held::Key));
        assert_eq!(rules().held(&facts(Some("anna"), &|_| None)), None);
        let project = |name: &str| (name == "x-project").then_some("secret-9");
        assert_eq!(rules().held(&facts(None, &project)), Some(Held::Header));
        let beside = RequestFacts { beside: &["x=/srv/secret"], ..facts(None, &|_| None) };
        assert_eq!(rules().held(&beside), Some(Held::Path));
        assert!(NeverTo::fault_of(" \n").is_some() && NeverTo::fault_of("a").is_none());
    }
}
