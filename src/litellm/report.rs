//! The report: one line for every key, with its verdict and the reason.
//!
//! The other modules mark paths. An unmarked path gets the verdict of the table in `keys`, or is reported as unknown,
//! so no leaf of the file is without a line.

use std::collections::BTreeMap;
use std::fmt;

use super::keys;
use super::verdict::KeyVerdict;
use super::yaml::{Content, Node, RepeatedKey};

/// One leaf of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The leaf's path, such as `model_list[0].litellm_params.api_base`.
    pub key: String,
    /// The verdict on it.
    pub verdict: KeyVerdict,
    /// How it was used, why not, or what to do.
    pub note: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11}  {}: {}", self.verdict, self.key, self.note)
    }
}

/// The line on a key that a map has twice.
pub(super) fn repeated(key: &RepeatedKey) -> Line {
    let note = "is here a second time: the last one counts, as in LiteLLM; keep one of the two";
    Line {
        key: format!("{} (line {})", key.key, key.line),
        verdict: KeyVerdict::Ignored,
        note: note.to_owned(),
    }
}

/// The path of `key` inside `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    let plain =
        !key.is_empty() && !key.contains(|c: char| c.is_control() || matches!(c, '.' | '[' | ']' | '"'));
    match (path.is_empty(), plain) {
        (true, true) => key.to_owned(),
        (false, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{key:?}]"),
    }
}

/// The verdicts so far, by path.
#[derive(Debug, Default)]
pub(super) struct Report {
    verdicts: BTreeMap<String, (KeyVerdict, String)>,
}

impl Report {
    /// Sets the verdict on `path` and on everything below it that has no verdict of its own. The last call for a path
    /// counts.
    pub(super) fn mark(&mut self, path: impl Into<String>, verdict: KeyVerdict, note: impl Into<String>) {
        self.verdicts.insert(path.into(), (verdict, note.into()));
    }

    /// One line for every leaf of `root`.
    pub(super) fn lines(&self, root: &Node) -> Vec<Line> {
        let mut lines = Vec::new();
        self.walk(root, "", "", None, &mut lines);
        lines
    }

    /// `path` names the node in the report; `pattern` names it in the table of `keys`, with every index as `[]`.
    fn walk(
        &self,
        node: &Node,
        path: &str,
        pattern: &str,
        above: Option<(KeyVerdict, &str)>,
        lines: &mut Vec<Line>,
    ) {
        let verdict = match self.verdicts.get(path) {
            Some((verdict, note)) => Some((*verdict, note.as_str())),
            None => keys::find(pattern)
                .or(above)
                .or(node.anchored.then_some((KeyVerdict::Ignored, keys::ANCHORED))),
        };
        match &node.content {
            Content::Map(entries) if !entries.is_empty() => {
                for (key, value) in entries {
                    self.walk(value, &join(path, key), &join(pattern, key), verdict, lines);
                }
            }
            Content::List(items) if !items.is_empty() => {
                for (i, item) in items.iter().enumerate() {
                    self.walk(item, &format!("{path}[{i}]"), &format!("{pattern}[]"), verdict, lines);
                }
            }
            Content::Scalar { .. } | Content::List(_) | Content::Map(_) => {
                let unknown = match &node.content {
                    Content::Scalar { .. } if !node.is_null() => (KeyVerdict::Unsupported, keys::UNKNOWN),
                    _ => (KeyVerdict::Ignored, "empty"),
                };
                let (verdict, note) = verdict.unwrap_or(unknown);
                lines.push(Line { key: path.to_owned(), verdict, note: note.to_owned() });
            }
        }
    }
}
