//! The Messages API's web search, a tool that the API's own server runs: its declaration, its blocks and its errors.

use percent_encoding::percent_decode_str;

use crate::json::Value;

/// The beginning of the type of the tool; a version follows it, as in `web_search_20250305`.
const TYPE_PREFIX: &str = "web_search_";

/// True for the type of the tool, of any version.
pub(super) fn is_web_search(kind: &str) -> bool {
    kind.starts_with(TYPE_PREFIX)
}

/// The name of the tool, which the API fixes.
pub const WEB_SEARCH: &str = "web_search";

/// The most domains of one list that are read. The API states no limit. Each result is compared with each of them.
const DOMAINS_MAX: usize = 100;

/// The longest domain that is compared, in bytes. No result has a longer address, so a longer domain holds for none.
const DOMAIN_SIZE_MAX: usize = 2_048;

/// One result of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchHit {
    /// The title of the page.
    pub title: String,
    /// Its address.
    pub url: String,
    /// When it was last changed, as the engine says it.
    pub page_age: Option<String>,
    /// Text of the page that fits the query.
    pub snippet: String,
}

/// The reason why a search has no results, by the API's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SearchFailure {
    /// The engine gave no results, or a hook refused the search.
    Unavailable,
    /// Too many searches at a time.
    TooManyRequests,
    /// The query is longer than the limit.
    QueryTooLong,
    /// The query is missing or empty.
    InvalidToolInput,
    /// The request has used all of its searches.
    MaxUsesExceeded,
}

impl SearchFailure {
    /// All of them, with their names in the API.
    pub const NAMES: [(SearchFailure, &'static str); 5] = [
        (SearchFailure::Unavailable, "unavailable"),
        (SearchFailure::TooManyRequests, "too_many_requests"),
        (SearchFailure::QueryTooLong, "query_too_long"),
        (SearchFailure::InvalidToolInput, "invalid_tool_input"),
        (SearchFailure::MaxUsesExceeded, "max_uses_exceeded"),
    ];

    /// The name in the API.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(failure, _)| *failure == self).map_or("unavailable", |(_, name)| name)
    }
}

/// The results of a search, or the reason why it failed.
pub type SearchOutcome = Result<Vec<SearchHit>, SearchFailure>;

/// A declaration of the tool: the rules for its searches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebSearchTool {
    /// Only pages of these domains, and of those below them, are results; empty: all are.
    pub allowed: Vec<String>,
    /// No page of these domains is a result.
    pub blocked: Vec<String>,
    /// The most searches of one request.
    pub uses_max: Option<u64>,
}

impl WebSearchTool {
    /// Reads one of `tools`. `None` if it is another tool, or one of the client that merely has such a type: the API's
    /// has no schema.
    pub fn read(tool: &Value<'_>) -> Option<WebSearchTool> {
        let kind = tool.get("type")?.as_str()?;
        if !is_web_search(kind) || tool.get("input_schema").is_some() {
            return None;
        }
        let domains = |key: &str| {
            let list = tool.get(key).and_then(Value::as_array).unwrap_or_default();
            // A domain that holds for nothing stays in its list: without any, all would be allowed.
            let kept =
                |domain: &str| if domain.len() > DOMAIN_SIZE_MAX { "" } else { domain }.to_ascii_lowercase();
            list.iter().filter_map(Value::as_str).take(DOMAINS_MAX).map(kept).collect()
        };
        Some(WebSearchTool {
            allowed: domains("allowed_domains"),
            blocked: domains("blocked_domains"),
            uses_max: tool.get("max_uses").and_then(Value::as_u64),
        })
    }

    /// The bytes that it takes, about.
    pub fn size(&self) -> usize {
        let lists = self.allowed.iter().chain(&self.blocked);
        size_of::<WebSearchTool>() + lists.map(|domain| size_of::<String>() + domain.len()).sum::<usize>()
    }

    /// True if a page of this address may be a result. With lists, an address whose host is not plain may not.
    pub fn allows(&self, url: &str) -> bool {
        if self.allowed.is_empty() && self.blocked.is_empty() {
            return true;
        }
        let Some(place) = PagePlace::read(url) else { return false };
        let is_below = |domain: &String| place.is_below(domain);
        (self.allowed.is_empty() || self.allowed.iter().any(is_below)) && !self.blocked.iter().any(is_below)
    }
}

/// Host and path of an address as browsers read them (URL Standard of the WHATWG), in lower case. The path has no slash in front.
struct PagePlace {
    host: String,
    path: String,
}

impl PagePlace {
    /// `None` if host or path can be read in two ways: a host with `%`, with other characters than ASCII (`。` is a dot there), or
    /// a number in the place of an IPv4 address; a path with an escaped slash.
    fn read(url: &str) -> Option<PagePlace> {
        let (_, rest) = url.split_once(':')?;
        // In these schemes a backslash is a slash, and their number in front of the host does not matter.
        let rest = rest.trim_start_matches(['/', '\\']);
        let (authority, _) = rest.split_once(['/', '\\', '?', '#']).unwrap_or((rest, ""));
        let path = rest.get(authority.len()..)?.split(['?', '#']).next()?;
        let host = authority.rsplit('@').next().unwrap_or(authority);
        let host = match host.split_once(']') {
            Some((address, _)) => address.trim_start_matches('['),
            None => host.split(':').next().unwrap_or(host),
        };
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let last = host.rsplit('.').next().unwrap_or_default();
        let is_number = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = host.is_ascii() && !host.contains('%');
        if !is_plain || is_number && !is_ipv4(&host) {
            return None;
        }
        let mut parts: Vec<String> = Vec::new();
        for part in path.split(['/', '\\']).skip(1) {
            let decoded = percent_decode_str(part).decode_utf8_lossy().to_lowercase();
            match decoded.as_str() {
                ".." => _ = parts.pop(),
                "." => {}
                other if other.contains(['/', '\\']) => return None,
                _ => parts.push(decoded),
            }
        }
        Some(PagePlace { host, path: parts.join("/") })
    }

    /// True if it lies in a domain, or in one below it. The domain may have a path: `example.com/blog`.
    fn is_below(&self, domain: &str) -> bool {
        let domain = domain.trim_start_matches("https://").trim_start_matches("http://");
        let (domain, wanted) = domain.split_once('/').unwrap_or((domain, ""));
        let domain = domain.trim_start_matches("*.");
        let before = self.host.strip_suffix(domain);
        let is_inside = before.is_some_and(|before| before.is_empty() || before.ends_with('.'));
        let wanted = wanted.trim_end_matches('/');
        let after = self.path.strip_prefix(wanted);
        let is_under =
            after.is_some_and(|after| wanted.is_empty() || after.is_empty() || after.starts_with('/'));
        !domain.is_empty() && is_inside && is_under
    }
}

/// True for four decimal numbers without leading zeros: browsers read other numbers as addresses too, octal ones for example.
fn is_ipv4(host: &str) -> bool {
    let is_byte = |part: &str| part.parse::<u8>().is_ok_and(|byte| byte.to_string() == part);
    host.split('.').count() == 4 && host.split('.').all(is_byte)
}

/// The block of a search that was made: `server_tool_use`.
pub fn search_call(id: &str, query: &str) -> Value<'static> {
    Value::object([
        ("type", "server_tool_use".into()),
        ("id", id.to_owned().into()),
        ("name", WEB_SEARCH.into()),
        ("input", Value::object([("query", query.to_owned().into())])),
    ])
}

/// The block of its results: `web_search_tool_result`. `encrypted_content` is empty, since the model gets the text of
/// the results in another way.
pub fn search_result(id: &str, outcome: &SearchOutcome) -> Value<'static> {
    let hit = |hit: &SearchHit| {
        Value::object([
            ("type", "web_search_result".into()),
            ("title", hit.title.clone().into()),
            ("url", hit.url.clone().into()),
            ("encrypted_content", "".into()),
            ("page_age", hit.page_age.clone().map_or(Value::Null, Value::from)),
        ])
    };
    let content = match outcome {
        Ok(hits) => hits.iter().map(hit).collect::<Vec<_>>().into(),
        Err(failure) => Value::object([
            ("type", "web_search_tool_result_error".into()),
            ("error_code", failure.name().into()),
        ]),
    };
    Value::object([
        ("type", "web_search_tool_result".into()),
        ("tool_use_id", id.to_owned().into()),
        ("content", content),
    ])
}

/// The results as text for a model: title, address and snippet of each.
pub fn search_text(query: &str, outcome: &SearchOutcome) -> String {
    match outcome {
        Ok(hits) if hits.is_empty() => format!("No results for \"{query}\"."),
        Ok(hits) => {
            let entry = |(i, hit): (usize, &SearchHit)| {
                let age = hit.page_age.as_ref().map(|age| format!(" ({age})")).unwrap_or_default();
                format!("{}. {}{age}\n{}\n{}", i + 1, hit.title, hit.url, hit.snippet)
            };
            let entries: Vec<String> = hits.iter().enumerate().map(entry).collect();
            format!("Results for \"{query}\":\n\n{}", entries.join("\n\n"))
        }
        Err(SearchFailure::Unavailable) => "The search failed: web search is unavailable.".to_owned(),
        Err(failure) => format!("The search failed: {}.", failure.name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn tool(text: &str) -> Option<WebSearchTool> {
        WebSearchTool::read(&json::parse(&mut text.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn only_the_tool_of_the_api_is_a_web_search() {
        assert!(tool(r#"{"type":"web_search_20250305","name":"web_search"}"#).is_some());
        for other in [
            r#"{"type":"web_search_20250305","name":"web_search","input_schema":{}}"#,
            r#"{"type":"web_fetch_20250910","name":"web_fetch"}"#,
            r#"{"name":"web_search","input_schema":{}}"#,
            r#"{"type":7,"name":"web_search"}"#,
            r#"[]"#,
        ] {
            assert!(tool(other).is_none(), "{other}");
        }
    }

    #[test]
    fn domains_include_those_below_them_and_no_others() {
        for (domain, url, is_inside) in [
            ("example.com", "https://example.com/", true),
            ("example.com", "https://docs.EXAMPLE.com:8443/a?b", true),
            ("example.com", "https://example.com", true),
            ("example.com", "https://badexample.com/", false),
            ("example.com", "https://example.com.evil.org/", false),
            ("example.com", "https://evil.org/?u=example.com", false),
            ("example.com", "https://example.com@evil.org/", false),
            ("example.com/blog", "https://example.com/blog/1", true),
            ("example.com/blog/", "https://example.com/blog", true),
            ("example.com/blog", "https://example.com/blogs", false),
            ("https://example.com", "https://example.com/x", true),
            ("*.example.com", "https://a.example.com/x", true),
            ("example.com", r"https://evil.org\@example.com/", false),
            ("example.com", r"https://example.com\.evil.org/", true),
            ("example.com", r"https:\\example.com/", true),
            ("example.com/secret", "https://example.com/docs/../secret", true),
            ("example.com/secret", r"https://example.com/docs\%2e%2E\%73ecret?x", true),
            ("example.com/docs", "https://example.com/../docs/./a", true),
            ("example.com/docs", "https://example.com/docs/../secret", false),
            ("example.com/docs", "https://example.com/Docs#x", true),
            ("127.0.0.1", "http://127.0.0.1:8080/", true),
            ("example.com", "http://[::1]:80/", false),
            ("", "https://example.com/", false),
        ] {
            let place = PagePlace::read(url).unwrap();
            assert_eq!(place.is_below(domain), is_inside, "{domain} {url}");
        }
        let rules = tool(
            r#"{"type":"web_search_1","name":"web_search","max_uses":3,
            "allowed_domains":["Rust-Lang.org",5],"blocked_domains":["forge.rust-lang.org"]}"#,
        )
        .unwrap();
        assert_eq!(rules.uses_max, Some(3));
        assert!(
            rules.allows("https://doc.rust-lang.org/std") && !rules.allows("https://forge.rust-lang.org")
        );
        assert!(!rules.allows("https://example.com/") && WebSearchTool::default().allows("ftp://x"));
        let long = "a".repeat(DOMAIN_SIZE_MAX + 1);
        let long =
            tool(&format!(r#"{{"type":"web_search_1","name":"web_search","allowed_domains":["{long}"]}}"#));
        let long = long.unwrap();
        assert!(!long.allows("https://example.com/") && long.size() < 200);
    }

    #[test]
    fn with_lists_an_address_of_two_readings_is_no_result() {
        let listed =
            tool(r#"{"type":"web_search_1","name":"web_search","blocked_domains":["a.org"]}"#).unwrap();
        for url in [
            "https://ex%61mple.com/",
            "https://example\u{3002}com/",
            "https://\u{ff45}xample.com/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "https://example.com/docs%2F..%5csecret",
            "no address",
            "https://",
        ] {
            assert!(!listed.allows(url) && WebSearchTool::default().allows(url), "{url}");
        }
        assert!(listed.allows("https://b.org/a%20b/%C3%B6?q=%2f"));
    }

    #[test]
    fn blocks_are_those_of_the_api() {
        let hit = SearchHit {
            title: "Rust".into(),
            url: "https://rust-lang.org/".into(),
            page_age: None,
            snippet: "A language.".into(),
        };
        assert_eq!(
            search_result("srvtoolu_1", &Ok(vec![hit.clone()])).to_json(),
            r#"{"type":"web_search_tool_result","tool_use_id":"srvtoolu_1","content":[{"type":"web_search_result","title":"Rust","url":"https://rust-lang.org/","encrypted_content":"","page_age":null}]}"#
        );
        assert_eq!(
            search_result("srvtoolu_1", &Err(SearchFailure::QueryTooLong)).to_json(),
            r#"{"type":"web_search_tool_result","tool_use_id":"srvtoolu_1","content":{"type":"web_search_tool_result_error","error_code":"query_too_long"}}"#
        );
        let text = search_text("rust", &Ok(vec![hit]));
        assert_eq!(text, "Results for \"rust\":\n\n1. Rust\nhttps://rust-lang.org/\nA language.");
        assert_eq!(search_text("q", &Ok(Vec::new())), "No results for \"q\".");
    }
}
