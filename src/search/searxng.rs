//! Asks a SearXNG: `GET /search?format=json`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::page::read_hits;
use crate::anthropic::{SearchFailure, SearchHit, SearchOutcome, WebSearchTool};
use crate::config::{SearchConfig, UpstreamConfig};
use crate::shown::ShownText;
use crate::transport::{CallLimits, Endpoint, Path, QuestionLimits};

/// The longest time of one search. SearXNG itself gives up on its engines after a few seconds.
pub const SEARCH_TIME: Duration = Duration::from_secs(15);

/// The largest page of results, in bytes. A usual one has 50 KB.
const PAGE_SIZE_MAX: usize = 2 * 1024 * 1024;

/// The most searches at a time. One whose client has left goes on until its time limit, so that more could pile up than
/// there are clients; each holds a thread and up to one page.
const SEARCHES_MAX: usize = 32;

/// The most allowed domains that are named to the engine. A longer query finds less; the results are checked anyhow.
const SITES_MAX: usize = 5;

/// The number of running searches.
static SEARCHES: AtomicUsize = AtomicUsize::new(0);

/// One of the running searches, until it is dropped.
#[derive(Debug)]
struct SearchSlot;

impl SearchSlot {
    fn take() -> Option<SearchSlot> {
        let more = |running: usize| (running < SEARCHES_MAX).then_some(running + 1);
        SEARCHES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| SearchSlot)
    }
}

impl Drop for SearchSlot {
    fn drop(&mut self) {
        SEARCHES.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A failed search.
struct FailedSearch {
    kind: SearchFailure,
    /// The reason, with the setting that would help.
    why: String,
}

/// Searches, and waits for the results. The reason for a failure is logged, since the client learns only its kind.
///
/// # Errors
/// The engine does not answer within its limits, refuses, or is asked by too many at a time.
pub fn ask_searxng(config: &SearchConfig, query: &str, tool: &WebSearchTool) -> SearchOutcome {
    search(config, query, tool).map_err(|FailedSearch { kind, why }| {
        log::warn!("web search by {}: {}", config.searxng, ShownText::new(&why));
        kind
    })
}

/// Tries the engine, and returns the number of results.
///
/// # Errors
/// The reason why it does not work, with the setting that would help.
pub fn try_searxng(config: &SearchConfig) -> Result<usize, String> {
    let found = search(config, "sparkgap", &WebSearchTool::default());
    found.map(|hits| hits.len()).map_err(|failed| failed.why)
}

fn search(config: &SearchConfig, query: &str, tool: &WebSearchTool) -> Result<Vec<SearchHit>, FailedSearch> {
    use SearchFailure::{QueryTooLong, TooManyRequests, Unavailable};
    let fail = |kind, why: &str| FailedSearch { kind, why: why.to_owned() };
    let Some(_slot) = SearchSlot::take() else {
        return Err(fail(TooManyRequests, &format!("refused, since {SEARCHES_MAX} searches are running")));
    };
    let upstream = UpstreamConfig::new("search", config.searxng.clone());
    let endpoint = Endpoint::new(&upstream, &CallLimits::default()).map_err(|why| fail(Unavailable, &why))?;
    let limits = QuestionLimits { time: SEARCH_TIME, size: PAGE_SIZE_MAX };
    let path = format!("/search?q={}&format=json", percent_encoded(&with_sites(query, tool)));
    let page = endpoint.question(Path::Api(&path), limits);
    let mut page = page.map_err(|failure| fail(Unavailable, &failure.to_string()))?;
    match page.status {
        200 => read_hits(&mut page.body, tool).ok_or_else(|| {
            let why = "its page is not JSON with results; check that the URL is the base URL of a SearXNG";
            fail(Unavailable, why)
        }),
        403 => Err(fail(
            Unavailable,
            "status 403; add json to search.formats in SearXNG's settings.yml and restart it",
        )),
        429 => Err(fail(
            TooManyRequests,
            "status 429 by its limiter; set server.limiter to false in SearXNG's settings.yml",
        )),
        414 => Err(fail(QueryTooLong, "status 414")),
        status => Err(fail(Unavailable, &format!("status {status}"))),
    }
}

/// The query with the allowed domains in the form that most engines know.
fn with_sites(query: &str, tool: &WebSearchTool) -> String {
    if tool.allowed.is_empty() || tool.allowed.len() > SITES_MAX || query.contains("site:") {
        return query.to_owned();
    }
    let named = tool.allowed.iter().filter(|domain| !domain.is_empty());
    let sites: Vec<String> = named.map(|domain| format!("site:{domain}")).collect();
    format!("{query} {}", sites.join(" OR "))
}

/// The characters without a meaning of their own in a query are letters, digits and these four.
const SPECIAL: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A text as a value in a URL's query.
fn percent_encoded(text: &str) -> String {
    utf8_percent_encode(text, SPECIAL).to_string().replace("%20", "+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_cannot_leave_its_place_in_the_url() {
        assert_eq!(
            percent_encoded("a b&format=html#x?/ö\n\"%"),
            "a+b%26format%3Dhtml%23x%3F%2F%C3%B6%0A%22%25"
        );
        assert_eq!(percent_encoded("A-z_0.9~"), "A-z_0.9~");
    }

    #[test]
    fn allowed_domains_are_named_to_the_engine() {
        let tool = |n: usize| WebSearchTool {
            allowed: (0..n).map(|i| format!("{i}.org")).collect(),
            ..WebSearchTool::default()
        };
        assert_eq!(with_sites("q", &tool(0)), "q");
        assert_eq!(with_sites("q", &tool(2)), "q site:0.org OR site:1.org");
        assert_eq!(with_sites("q site:a.org", &tool(2)), "q site:a.org");
        assert_eq!(with_sites("q", &tool(SITES_MAX + 1)), "q");
    }
}
