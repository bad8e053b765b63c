//! Pairs the calls of one answer with their results.
//!
//! Pairs them by id, and each result answers at most one call: among calls that share an id the first call gets the
//! first result, and so on. So no result is lost if a server gives one id to several calls, and no result is repeated
//! for each of them. The last call of an id gets the last result of that id, because a client that sends a result twice
//! means the later one.

use std::collections::HashMap;
use std::iter::Peekable;
use std::vec::IntoIter;

use crate::anthropic::ToolResult;

/// The longest lists that are compared item by item. For the usual few calls of an answer this is cheaper than a table.
const FEW_MAX: usize = 8;

/// The result of pairing calls and results.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Paired {
    /// For each call, the place of its result in the list of results.
    pub(super) of_calls: Vec<Option<usize>>,
    /// The places of results whose id belongs to no call.
    pub(super) without_call: Vec<usize>,
}

/// Pairs the calls that have these ids with `results`. The time is linear in the number of both.
pub(super) fn pair(calls: &[&str], results: &[&ToolResult<'_>]) -> Paired {
    if calls.len() <= FEW_MAX && results.len() <= FEW_MAX && are_unique(calls) {
        return pair_few(calls, results);
    }
    pair_many(calls, results)
}

fn are_unique(calls: &[&str]) -> bool {
    calls.iter().enumerate().all(|(at, id)| !calls.iter().take(at).any(|before| before == id))
}

fn pair_few(calls: &[&str], results: &[&ToolResult<'_>]) -> Paired {
    let of_call = |id: &&str| results.iter().rposition(|result| result.id == *id);
    let is_without =
        |(at, result): (usize, &&ToolResult<'_>)| (!calls.contains(&result.id.as_ref())).then_some(at);
    Paired {
        of_calls: calls.iter().map(of_call).collect(),
        without_call: results.iter().enumerate().filter_map(is_without).collect(),
    }
}

/// The calls with one id that have no result yet, and the places of the results with that id.
#[derive(Default)]
struct SameId {
    calls_left: usize,
    results: Vec<usize>,
}

fn pair_many(calls: &[&str], results: &[&ToolResult<'_>]) -> Paired {
    let mut ids: HashMap<&str, SameId> = HashMap::with_capacity(calls.len());
    for id in calls {
        ids.entry(id).or_default().calls_left += 1;
    }
    let mut paired = Paired::default();
    for (at, result) in results.iter().enumerate() {
        match ids.get_mut(result.id.as_ref()) {
            Some(same) => same.results.push(at),
            None => paired.without_call.push(at),
        }
    }
    let mut ids: HashMap<&str, (usize, Peekable<IntoIter<usize>>)> = ids
        .into_iter()
        .map(|(id, same)| (id, (same.calls_left, same.results.into_iter().peekable())))
        .collect();
    for id in calls {
        let Some((calls_left, places)) = ids.get_mut(id) else { continue };
        *calls_left -= 1;
        paired.of_calls.push(if *calls_left == 0 { places.last() } else { places.next() });
    }
    paired
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paired(calls: &str, results: &str) -> (String, String) {
        let split = |ids: &str| ids.chars().map(String::from).collect::<Vec<_>>();
        let (calls, ids) = (split(calls), split(results));
        let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
        let results: Vec<ToolResult<'_>> =
            ids.iter().map(|id| ToolResult { id: id.into(), content: Vec::new(), is_error: false }).collect();
        let results: Vec<&ToolResult<'_>> = results.iter().collect();
        let found = pair(&calls, &results);
        if are_unique(&calls) {
            assert_eq!(pair_few(&calls, &results), pair_many(&calls, &results));
        }
        let of_calls = found.of_calls.iter().map(|at| at.map_or("-".to_string(), |at| at.to_string()));
        (of_calls.collect(), found.without_call.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn each_result_answers_one_call() {
        for (calls, results, of_calls, without_call) in [
            ("", "", "", ""),
            ("ab", "ba", "10", ""),
            ("ab", "b", "-0", ""),
            ("a", "xay", "1", "02"),
            // The later of two results for one call.
            ("ab", "aba", "21", ""),
            // One id for several calls: in order.
            ("aa", "aa", "01", ""),
            ("aab", "aba", "021", ""),
            ("aaa", "a", "0--", ""),
            ("aa", "aaa", "02", ""),
            ("abcdefghij", "jihgfedcbax", "9876543210", "10"),
        ] {
            let expected = (of_calls.to_string(), without_call.to_string());
            assert_eq!(paired(calls, results), expected, "{calls} {results}");
        }
    }
}
