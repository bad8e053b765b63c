//! A page of results of a SearXNG as hits, made fit for clients and models.
//!
//! The page's texts are those of strangers. Their number and their sizes are limited here, whatever the engine sent.

use std::collections::HashSet;

use crate::anthropic::{SearchHit, WebSearchTool};
use crate::json::{self, Value};
use crate::shown::is_command;

/// The most results of one search.
const HITS_MAX: usize = 8;

/// The most results of a page that are looked at. SearXNG sends some dozens.
const ENTRIES_MAX: usize = 1_000;

/// The most characters of a title, of a snippet and of an age. All results together are about 1,000 tokens then.
const TITLE_LENGTH_MAX: usize = 200;
const SNIPPET_LENGTH_MAX: usize = 400;
const AGE_LENGTH_MAX: usize = 40;

/// The longest address in bytes. Browsers refuse longer ones.
const URL_SIZE_MAX: usize = 2_048;

/// Reads SearXNG's page in JSON: `{"results":[{"url":…,"title":…,"content":…,"publishedDate":…}]}`. `None`: it is not such a
/// page.
pub fn read_hits(page: &mut [u8], tool: &WebSearchTool) -> Option<Vec<SearchHit>> {
    let page = json::parse(page).ok()?;
    let results = page.get("results")?.as_array()?;
    let hit = |entry: &Value<'_>| {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        SearchHit {
            title: text("title"),
            url: text("url"),
            page_age: Some(text("publishedDate")),
            snippet: text("content"),
        }
    };
    Some(clean_hits(results.iter().take(ENTRIES_MAX).map(hit), tool))
}

/// The first hits that the tool's rules allow, each address once, cut to the limits.
pub fn clean_hits(hits: impl Iterator<Item = SearchHit>, tool: &WebSearchTool) -> Vec<SearchHit> {
    let mut seen = HashSet::new();
    let is_page = |url: &str| {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let is_web = scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http");
        is_web && rest.starts_with(|c: char| !matches!(c, '/' | '\\' | '?' | '#' | ':'))
    };
    let has_plain_url = |hit: &SearchHit| {
        let url = &hit.url;
        url.len() <= URL_SIZE_MAX
            && is_page(url)
            && !url.contains(|c: char| c.is_whitespace() || is_command(c))
    };
    let allowed = hits.filter(|hit| has_plain_url(hit) && tool.allows(&hit.url));
    let fresh = allowed.filter(|hit| seen.insert(hit.url.clone()));
    let cut = |hit: SearchHit| {
        let title = one_line(&hit.title, TITLE_LENGTH_MAX);
        let age = hit.page_age.map(|age| one_line(&age, AGE_LENGTH_MAX));
        SearchHit {
            title: if title.is_empty() { hit.url.clone() } else { title },
            page_age: age.filter(|age| !age.is_empty()),
            snippet: one_line(&hit.snippet, SNIPPET_LENGTH_MAX),
            url: hit.url,
        }
    };
    fresh.take(HITS_MAX).map(cut).collect()
}

/// The text as one line of at most this many characters, without characters that are not seen or turn the direction of writing.
fn one_line(text: &str, length_max: usize) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut line = words.collect::<Vec<_>>().join(" ");
    line.retain(|c| !is_command(c));
    match line.char_indices().nth(length_max) {
        None => line,
        Some(_) => line.chars().take(length_max - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(page: &str) -> Option<Vec<SearchHit>> {
        read_hits(&mut page.as_bytes().to_vec(), &WebSearchTool::default())
    }

    #[test]
    fn a_page_of_searxng_becomes_hits() {
        let page = r#"{"query":"rust","number_of_results":0,"results":[
            {"url":"https://rust-lang.org/","title":"Rust\n Language","content":"Reliable  and\tfast.","engine":"a","score":2.0,
             "publishedDate":"2026-11-01T00:00:00","category":"general"},
            {"url":"https://rust-lang.org/","title":"again","content":""},
            {"url":"javascript:alert(1)","title":"bad"},
            {"url":"https://a b/","title":"bad"},
            {"title":"no address"}, 7, {"url":"http://"}, {"url":"https:///x"}, {"url":"https://x/\u202e"},
            {"url":"http://b.org/","title":"","content":null,"publishedDate":null},
            {"url":"HTTPS://UP.example/A","title":"a\u202eb\u200bc"}],
            "answers":[],"suggestions":[],"unresponsive_engines":[["x","timeout"]]}"#;
        let found = hits(page).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!((found[2].url.as_str(), found[2].title.as_str()), ("HTTPS://UP.example/A", "abc"));
        assert_eq!(
            (found[0].title.as_str(), found[0].snippet.as_str()),
            ("Rust Language", "Reliable and fast.")
        );
        assert_eq!(found[0].page_age.as_deref(), Some("2026-11-01T00:00:00"));
        assert_eq!((found[1].title.as_str(), &found[1].page_age), ("http://b.org/", &None));
    }

    #[test]
    fn number_and_lengths_are_limited() {
        let entry = |i: usize| {
            format!(r#"{{"url":"https://x/{i}","title":"{0}","content":"{0}"}}"#, "ö ".repeat(900))
        };
        let entries: Vec<String> = (0..50).map(entry).collect();
        let found = hits(&format!(r#"{{"results":[{}]}}"#, entries.join(","))).unwrap();
        assert_eq!(found.len(), HITS_MAX);
        for hit in found {
            assert!(hit.title.chars().count() <= TITLE_LENGTH_MAX, "{}", hit.title);
            assert!(hit.snippet.chars().count() <= SNIPPET_LENGTH_MAX, "{}", hit.snippet);
        }
        let long =
            format!(r#"{{"results":[{{"url":"https://x/{}","title":"a"}}]}}"#, "a".repeat(URL_SIZE_MAX));
        assert_eq!(hits(&long), Some(Vec::new()));
    }

    #[test]
    fn other_pages_are_not_results() {
        for page in ["", "<html>", "[]", "{}", r#"{"results":7}"#, r#"{"results":"x"}"#] {
            assert_eq!(hits(page), None, "{page}");
        }
        assert_eq!(hits(r#"{"results":[]}"#), Some(Vec::new()));
    }
}
