//! The chat completion for the next round of an answer whose model searches the web.

use super::estimate;
use super::history::round_messages;
use super::plan::{Asked, Target};
use super::request::retarget;
use super::stream::SearchRound;
use crate::anthropic::WEB_SEARCH;
use crate::json::{Object, Value};

/// The members that make a server continue the last message. They hold for the first round only.
const CONTINUE_KEYS: [&str; 2] = ["add_generation_prompt", "continue_final_message"];

/// Extends the body of a round by the model's answer and by the results of its searches, in the order of the calls. A forced
/// choice becomes a free one. The tokens that the answer has used are taken from the limit in `body` and in `asked`. Without
/// `offers`, the model can search no more.
pub fn extend_chat(
    body: &mut Value<'_>,
    (round, results): (&SearchRound, &[String]),
    asked: &mut Asked,
    target: &Target<'_>,
    offers: bool,
) {
    let Some(object) = body.as_object_mut() else { return };
    let Some(Value::Array(messages)) = object.get_mut("messages") else { return };
    let messages = messages.to_mut();
    let is_answer = |message: &mut Value<'_>| {
        let is_of_model = message.get("role").and_then(Value::as_str) == Some("assistant");
        is_of_model && message.get("tool_calls").is_none()
    };
    // The model has continued the beginning of an answer that the client gave.
    let begun = messages.pop_if(is_answer);
    let before = begun.as_ref().and_then(|begun| begun.get("content")?.as_str()).unwrap_or_default();
    messages.extend(round_messages(before, round, results, target.flavour));
    for key in CONTINUE_KEYS {
        object.remove(key);
    }
    if let Some(choice) = object.get_mut("tool_choice").filter(|choice| choice.as_str() != Some("none")) {
        *choice = "auto".into();
    }
    if !offers {
        withdraw_search(object);
    }
    asked.wanted_tokens = asked.wanted_tokens.saturating_sub(round.output).max(1);
    asked.estimate = estimate::prompt(body);
    if let Some(object) = body.as_object_mut() {
        retarget(object, asked, target.model, target);
    }
}

/// Takes the function of the web search out of the tools.
fn withdraw_search(object: &mut Object<'_>) {
    let Some(Value::Array(tools)) = object.get_mut("tools") else { return };
    let name = |tool: &Value<'_>| tool.get("function")?.get("name")?.as_str().map(str::to_owned);
    tools.to_mut().retain(|tool| name(tool).as_deref() != Some(WEB_SEARCH));
    if tools.is_empty() {
        for key in ["tools", "tool_choice", "parallel_tool_calls"] {
            object.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::Lessons;
    use super::super::stream::{RoundText, SearchCall};
    use super::*;
    use crate::dialect::ServerKind;
    use crate::json;
    use crate::settings::Settings;

    fn extended(body: &str, flavour: ServerKind, offers: bool) -> (String, Asked) {
        let settings = Settings::default();
        let lessons = Lessons::default();
        let target = Target { model: "m", flavour, window: None, lessons, settings: &settings };
        let call = |id: &str, arguments: &str| SearchCall {
            id: id.into(),
            query: String::new(),
            arguments: arguments.into(),
        };
        let written = RoundText { text: "\n\nLet me look.".into(), reasoning: "Hm.".into() };
        let calls = vec![call("c1", r#"{"query":"a"}"#), call("toolu_sg1_YTox", "{}")];
        let round = SearchRound { written, calls, output: 30 };
        let mut bytes = body.as_bytes().to_vec();
        let mut body = json::parse(&mut bytes).unwrap();
        let mut asked = Asked { wanted_tokens: 100, ..Asked::default() };
        let results = ["Results".to_owned(), "No".to_owned()];
        extend_chat(&mut body, (&round, &results), &mut asked, &target, offers);
        (body.to_json(), asked)
    }

    #[test]
    fn a_body_goes_on_with_answer_and_results() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"q"}],"tools":[{"type":"function","function":{"name":"web_search"}}],"tool_choice":"required","parallel_tool_calls":false,"max_tokens":100}"#;
        let (extended, asked) = self::extended(body, ServerKind::Vllm, true);
        assert_eq!(
            extended,
            r#"{"model":"m","messages":[{"role":"user","content":"q"},{"role":"assistant","content":"\n\nLet me look.","reasoning":"Hm.","tool_calls":[{"id":"c1","type":"function","function":{"name":"web_search","arguments":"{\"query\":\"a\"}"}},{"id":"a:1","type":"function","function":{"name":"web_search","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c1","content":"Results"},{"role":"tool","tool_call_id":"a:1","content":"No"}],"tools":[{"type":"function","function":{"name":"web_search"}}],"tool_choice":"auto","parallel_tool_calls":false,"max_tokens":70}"#
        );
        assert_eq!((asked.wanted_tokens, asked.max_tokens), (70, 70));
        assert!(asked.estimate.text > 10 && asked.prompt_tokens > 10);
    }

    #[test]
    fn a_search_is_offered_no_more() {
        let body = r#"{"messages":[],"tools":[{"type":"function","function":{"name":"web_search"}},{"type":"function","function":{"name":"Bash"}}],"tool_choice":"auto"}"#;
        let (extended, _) = self::extended(body, ServerKind::Vllm, false);
        assert!(
            extended.ends_with(
                r#""tools":[{"type":"function","function":{"name":"Bash"}}],"tool_choice":"auto"}"#
            )
        );
        let only = r#"{"messages":[],"tools":[{"type":"function","function":{"name":"web_search"}}],"tool_choice":"auto","parallel_tool_calls":false}"#;
        assert!(self::extended(only, ServerKind::Vllm, false).0.ends_with(r#""content":"No"}]}"#));
    }

    #[test]
    fn the_beginning_of_an_answer_is_not_a_message_of_its_own() {
        let body = r#"{"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"So"}],"add_generation_prompt":false,"continue_final_message":true}"#;
        let (extended, _) = self::extended(body, ServerKind::Vllm, true);
        assert!(
            extended.contains(r#"{"role":"assistant","content":"So\n\nLet me look.","reasoning""#),
            "{extended}"
        );
        assert!(!extended.contains("continue_final_message"), "{extended}");
        assert_eq!(extended.matches("\"assistant\"").count(), 1, "{extended}");
    }

    #[test]
    fn a_body_of_another_shape_stays() {
        for body in ["[]", "{}", r#"{"messages":"x"}"#] {
            assert_eq!(self::extended(body, ServerKind::Unknown, false).0, body);
        }
    }
}
