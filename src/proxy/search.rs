//! Makes web searches, and answers requests that are one search without asking any model.

use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};

use crate::anthropic::{SearchFailure, SearchOutcome, WebSearchTool};
use crate::error::Error;
use crate::fleet::Gateway;
use crate::hooks::{Hook, SearchDecision};
use crate::ids;
use crate::json::Value;
use crate::search::{SEARCH_TIME, SideSearch, ask_searxng, check_query, clean_hits, search_message};
use crate::threads;
use crate::transport::{Failure, Wait, wait_for};
use crate::wake::Wake;

use super::filter::Shown;
use super::prepare::{Hooked, Incoming, model_of};
use super::stop::Stop;

/// The name that stands for the search engine in the log and in metrics, in the place of an upstream's.
pub(super) const SEARCH_UPSTREAM: &str = "search";

/// The search that a request consists of, if searches are set up.
pub(super) fn find_search(gateway: &Gateway, body: &Value<'_>) -> Option<SideSearch> {
    let is_set_up = gateway.search().is_some() || gateway.hooks().defines(Hook::Search);
    if is_set_up { SideSearch::find(body) } else { None }
}

/// True if a request leads to an upstream that speaks the Messages API: that one makes its own searches.
///
/// # Errors
/// The client has left, or no upstream takes the request.
pub(super) fn searches_itself(
    incoming: &Incoming<'_>,
    body: &Value<'_>,
    hooked: &Hooked,
) -> Result<bool, Stop> {
    if !incoming.gateway.speaks_messages() {
        return Ok(false);
    }
    let (_, destinations) = incoming.destinations(model_of(body), hooked)?;
    Ok(destinations.first().is_some_and(|first| first.served.upstream().speaks_messages()))
}

/// Makes the search, and returns the message that answers the request.
///
/// # Errors
/// The client has left, or a hook of policy closed failed. A search that fails is an answer that says so.
pub(super) fn answer_search(
    gateway: &Gateway,
    shown: Option<&Shown>,
    search: SideSearch,
    wait: &dyn Wait,
) -> Result<Value<'static>, Stop> {
    let SideSearch { query, tool } = search;
    let outcome = make_search(gateway, shown, &query, tool, wait)?;
    Ok(search_message(&ids::server_tool_use_id(), &query, &outcome))
}

/// Makes one search: asks `on_search`, then the engine, with the client watched.
///
/// # Errors
/// The client has left, or a hook of policy closed failed. A search that fails has an outcome.
pub(super) fn make_search(
    gateway: &Gateway,
    shown: Option<&Shown>,
    query: &str,
    tool: WebSearchTool,
    wait: &dyn Wait,
) -> Result<SearchOutcome, Stop> {
    if tool.uses_max == Some(0) {
        return Ok(Err(SearchFailure::MaxUsesExceeded));
    }
    if let Err(failure) = check_query(query) {
        return Ok(Err(failure));
    }
    let decision = match shown.filter(|_| gateway.hooks().defines(Hook::Search)) {
        Some(shown) => gateway.hooks().on_search(query, &mut shown.borrow_mut())?,
        None => SearchDecision::Ask(query.to_owned()),
    };
    let query = match decision {
        SearchDecision::Ask(query) => query,
        SearchDecision::Answer(hits) => return Ok(Ok(clean_hits(hits.into_iter(), &tool))),
        SearchDecision::Refuse(failure) => return Ok(Err(failure)),
    };
    if let Err(failure) = check_query(&query) {
        return Ok(Err(failure));
    }
    let Some(config) = gateway.search().cloned() else {
        gateway.warn_once("on_search gave no results, and no search engine is configured", "search");
        return Ok(Err(SearchFailure::Unavailable));
    };
    in_background(wait, move || ask_searxng(&config, &query, &tool))
}

/// Runs a search in a thread of its own, and waits for it: the client is watched and gets signs of life meanwhile.
fn in_background(
    wait: &dyn Wait,
    work: impl FnOnce() -> SearchOutcome + Send + 'static,
) -> Result<SearchOutcome, Stop> {
    let told: Arc<(Wake, Mutex<Option<SearchOutcome>>)> =
        Arc::new((Wake::new().map_err(Error::exhausted)?, Mutex::new(None)));
    let teller = Arc::clone(&told);
    threads::background("search", move || {
        let outcome = work();
        *teller.1.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        teller.0.wake();
    })
    .map_err(Error::exhausted)?;
    // The search has a time limit of its own; this is for a thread that ends without a word.
    match wait_for(wait, told.0.as_fd(), SEARCH_TIME.saturating_mul(2)) {
        Err(Failure::ClientGone) => return Err(Stop::ClientGone),
        Err(failure) => log::warn!("web search: {failure}"),
        Ok(_) => {}
    }
    let outcome = told.1.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(outcome.unwrap_or(Err(SearchFailure::Unavailable)))
}
