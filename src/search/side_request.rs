//! The search that a request consists of.

use crate::anthropic::WebSearchTool;
use crate::json::Value;

/// The words before the query in Claude Code's requests.
const PREFACE: &str = "Perform a web search for the query:";

/// A request that is one search. Claude Code's WebSearch sends such a request beside the conversation: the web search is
/// its only tool, and the query stands in its last message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideSearch {
    /// The query.
    pub query: String,
    /// The rules for its results.
    pub tool: WebSearchTool,
}

impl SideSearch {
    /// Finds the search in the body of a Messages request. `None`: the request is not only a search.
    pub fn find(body: &Value<'_>) -> Option<SideSearch> {
        let [tool] = body.get("tools")?.as_array()? else { return None };
        let tool = WebSearchTool::read(tool)?;
        let message = body.get("messages")?.as_array()?.last()?;
        if message.get("role").and_then(Value::as_str) != Some("user") {
            return None;
        }
        let content = message.get("content")?;
        let texts = content.as_array().unwrap_or(std::slice::from_ref(content));
        let text = texts.iter().rev().find_map(|block| {
            let text = block.as_str().or_else(|| block.get("text")?.as_str());
            text.filter(|text| !text.trim_start().starts_with("<system-reminder>"))
        })?;
        let query = text.split_once(PREFACE).map_or(text, |(_, query)| query);
        Some(SideSearch { query: query.trim().to_owned(), tool })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    const TOOL: &str = r#"{"type":"web_search_20250305","name":"web_search","max_uses":8}"#;

    fn query(tools: &str, messages: &str) -> Option<String> {
        let mut bytes = format!(r#"{{"tools":{tools},"messages":{messages}}}"#).into_bytes();
        SideSearch::find(&json::parse(&mut bytes).unwrap()).map(|search| search.query)
    }

    #[test]
    fn the_query_is_found() {
        let tools = format!("[{TOOL}]");
        for (content, expected) in [
            (r#""Perform a web search for the query: rust 2027""#, "rust 2027"),
            (r#"[{"type":"text","text":"Perform a web search for the query: a: b\n"}]"#, "a: b"),
            (
                r#"[{"type":"text","text":"rust 2027"},{"type":"text","text":"<system-reminder>x</system-reminder>"}]"#,
                "rust 2027",
            ),
            (r#""  ""#, ""),
        ] {
            let messages = format!(r#"[{{"role":"user","content":{content}}}]"#);
            assert_eq!(query(&tools, &messages).as_deref(), Some(expected), "{content}");
        }
    }

    #[test]
    fn other_requests_are_not_searches() {
        let messages = r#"[{"role":"user","content":"rust"}]"#;
        let other = r#"{"name":"Bash","input_schema":{}}"#;
        for (tools, messages) in [
            (format!("[{TOOL},{other}]"), messages),
            (format!("[{other}]"), messages),
            ("[]".to_owned(), messages),
            ("7".to_owned(), messages),
            (format!("[{TOOL}]"), "[]"),
            (format!("[{TOOL}]"), r#"[{"role":"assistant","content":"x"}]"#),
            (format!("[{TOOL}]"), r#"[{"role":"user","content":[{"type":"image"}]}]"#),
            (format!("[{TOOL}]"), r#"[{"role":"user","content":7}]"#),
        ] {
            assert_eq!(query(&tools, messages), None, "{tools} {messages}");
        }
    }
}
