//! `on_search`: changes, answers or refuses a web search.

use std::borrow::Cow;

use super::calls::{returned_table, text};
use super::kind::Hook;
use super::outcome::Returned;
use super::request::HookRequest;
use super::set::Hooks;
use crate::anthropic::{SearchFailure, SearchHit};
use crate::error::Error;
use crate::json::{Object, Value};
use crate::shown::ShownText;

/// The most results of a hook that are read.
const RESULTS_MAX: usize = 100;

/// The decision of `on_search`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchDecision {
    /// The search engine is asked for this query, which may be another than the client's.
    Ask(String),
    /// These are the results. The engine is not asked.
    Answer(Vec<SearchHit>),
    /// The search fails for this reason.
    Refuse(SearchFailure),
}

impl Hooks {
    /// Runs before a web search. The hooks run in order, each with the query that the one before it left.
    ///
    /// # Errors
    /// A hook of policy closed failed: the request is refused.
    pub fn on_search(&self, query: &str, request: &mut HookRequest) -> Result<SearchDecision, Error> {
        let mut query = query.to_owned();
        for (index, defined) in self.of(Hook::Search) {
            let mut subject = Value::object([("query", query.as_str().into())]);
            let read = |returned: Returned<'_>, _: &mut Value<'_>| read_decision(returned);
            match self.call(index, defined, &mut subject, request, &read)? {
                None | Some(None) => {}
                Some(Some(SearchDecision::Ask(changed))) => query = changed,
                Some(Some(last)) => return Ok(last),
            }
        }
        Ok(SearchDecision::Ask(query))
    }
}

/// Reads the value that the hook returned. `None`: no decision.
fn read_decision(returned: Returned<'_>) -> Result<Option<SearchDecision>, String> {
    if let Returned::Value(Value::String(query)) = &returned {
        return Ok(Some(SearchDecision::Ask(query.to_string())));
    }
    let Some(object) = returned_table(returned, Hook::Search, &["query", "results", "error"])? else {
        return Ok(None);
    };
    // `error = is_blocked and "…"` is false for a query that may pass.
    if let Some(error) = object.get("error").filter(|error| error.as_bool() != Some(false)) {
        return Ok(Some(SearchDecision::Refuse(refusal_of(error))));
    }
    if let Some(results) = object.get("results") {
        return read_results(results).map(|hits| Some(SearchDecision::Answer(hits)));
    }
    Ok(text(&object, "query")?.map(SearchDecision::Ask))
}

/// The API's code of a hook's refusal. A refusal in other words is one as well: no query goes out by a slip in a word.
fn refusal_of(error: &Value<'_>) -> SearchFailure {
    let text = error.as_str().map_or_else(|| Cow::Owned(error.to_json()), Cow::Borrowed);
    let known = SearchFailure::NAMES.iter().find(|(_, name)| *name == text);
    known.map_or_else(
        || {
            log::info!("on_search refused a web search: {}", ShownText::new(&text));
            SearchFailure::Unavailable
        },
        |(failure, _)| *failure,
    )
}

fn read_results(results: &Value<'_>) -> Result<Vec<SearchHit>, String> {
    const FORM: &str = "the returned results must be a list of { title =, url =, snippet =, page_age = }";
    let list = match results {
        Value::Object(object) if object.is_empty() => return Ok(Vec::new()),
        other => other.as_array().ok_or(FORM)?,
    };
    let hit = |entry: &Value<'_>| {
        let object: &Object<'_> = entry.as_object().ok_or(FORM)?;
        let url = text(object, "url")?.ok_or("a returned result has no url")?;
        Ok(SearchHit {
            title: text(object, "title")?.unwrap_or_default(),
            url,
            page_age: text(object, "page_age")?,
            snippet: text(object, "snippet")?.unwrap_or_default(),
        })
    };
    list.iter().take(RESULTS_MAX).map(hit).collect()
}
