//! The answer to a search: the blocks of the API, and the results as text, which is all that a model reads of them.

use crate::anthropic::{SearchFailure, SearchOutcome, search_call, search_result, search_text};
use crate::json::Value;

/// The longest query in characters. Engines cut longer ones, or refuse them.
pub const QUERY_LENGTH_MAX: usize = 1_000;

/// Checks the query before anybody is asked.
///
/// # Errors
/// It is empty or too long.
pub fn check_query(query: &str) -> Result<(), SearchFailure> {
    if query.trim().is_empty() {
        return Err(SearchFailure::InvalidToolInput);
    }
    match query.chars().nth(QUERY_LENGTH_MAX) {
        Some(_) => Err(SearchFailure::QueryTooLong),
        None => Ok(()),
    }
}

/// The query as the blocks of a search show it. The client sends a query that was refused for its length in every later
/// request, so only its beginning stands there.
pub fn shown_query(query: &str) -> String {
    query.chars().take(QUERY_LENGTH_MAX).collect()
}

/// The message that answers a request for one search. `id` is that of the use of the tool.
pub fn search_message(id: &str, query: &str, outcome: &SearchOutcome) -> Value<'static> {
    let shown = shown_query(query);
    let text = Value::object([("type", "text".into()), ("text", search_text(&shown, outcome).into())]);
    let content = vec![search_call(id, &shown), search_result(id, outcome), text];
    Value::object([("content", content.into()), ("stop_reason", "end_turn".into())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_have_limits() {
        assert_eq!(check_query("rust"), Ok(()));
        assert_eq!(check_query(" \n"), Err(SearchFailure::InvalidToolInput));
        assert_eq!(check_query(&"ö".repeat(QUERY_LENGTH_MAX)), Ok(()));
        assert_eq!(check_query(&"ö".repeat(QUERY_LENGTH_MAX + 1)), Err(SearchFailure::QueryTooLong));
    }

    #[test]
    fn a_failed_search_is_an_answer_too() {
        let message = search_message("srvtoolu_1", &"a".repeat(5_000), &Err(SearchFailure::QueryTooLong));
        let content = message.get("content").and_then(Value::as_array).unwrap();
        assert_eq!(content.len(), 3);
        assert!(message.to_json().len() < 2_000);
        assert!(content[1].to_json().contains("query_too_long"));
    }
}
