//! The advice for each point: which flag of the server to change. Its words stand in the table of server kinds.

use super::verdict::ServerFacts;
use crate::dialect::{OWN_PARSER, ServerKind};
use crate::rescue::CallFamily;

/// A window in which Claude Code is at ease.
pub(super) const WINDOW_GOOD: u64 = 131_072;

/// Turns on the parsing of tool calls. `found`: the form in which the model's calls came as text, if they did; otherwise
/// the model's name says which parser it needs.
pub(super) fn tool_parser(server: &ServerFacts, found: Option<&'static CallFamily>) -> String {
    let family = found.or_else(|| CallFamily::of_model(&server.model));
    let parser = family.map_or(OWN_PARSER, |family| family.parser_at(server.flavour));
    server.flavour.dialect().fixes.with_tool_parser(parser)
}

/// Turns on the parsing of reasoning.
pub(super) fn reasoning_parser(server: &ServerFacts) -> String {
    let parser = server.flavour.reasoning_parser_of(&server.model);
    server.flavour.dialect().fixes.with_reasoning_parser(parser)
}

/// Makes the window larger.
pub(super) fn window(flavour: ServerKind) -> String {
    flavour.dialect().fixes.window.replace("{window}", &WINDOW_GOOD.to_string())
}

/// Says how large a window is that the server does not tell.
pub(super) fn untold_window() -> String {
    "set window = TOKENS for this upstream in a Lua file".into()
}

/// Switches auto mode off for a server that is too slow for it.
pub(super) fn no_auto_mode() -> String {
    "set auto_mode = false for this upstream in a Lua file: `sparkgap claude` then switches auto mode off (setting disableAutoMode)".into()
}

/// Makes the server report cached tokens.
pub(super) fn cached_tokens(flavour: ServerKind) -> Option<String> {
    flavour.dialect().fixes.cached_tokens.map(str::to_string)
}

/// Turns the prefix cache on.
pub(super) fn prefix_cache(flavour: ServerKind) -> String {
    flavour.dialect().fixes.prefix_cache.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parser_goes_by_the_model_and_by_the_form_that_came() {
        for (kind, model, expected) in [
            (ServerKind::Vllm, "Intel/Qwen3.6-35B-A3B-int4-AutoRound", "--tool-call-parser qwen3_coder"),
            (ServerKind::Vllm, "Qwen/Qwen3-8B", "--tool-call-parser hermes"),
            (ServerKind::Vllm, "Qwen2.5-7B", "--tool-call-parser hermes"),
            (ServerKind::Sglang, "Qwen2.5-7B", "--tool-call-parser qwen"),
            (ServerKind::Vllm, "openai/gpt-oss-20b", "--tool-call-parser openai"),
            (ServerKind::Sglang, "openai/gpt-oss-20b", "--tool-call-parser gpt-oss"),
            (ServerKind::Vllm, "other", "--tool-call-parser NAME with the parser of your model"),
        ] {
            let server = ServerFacts { flavour: kind, model: model.into() };
            let fix = tool_parser(&server, None);
            assert!(fix.contains(expected), "{model}: {fix}");
            let fix = tool_parser(&server, CallFamily::named("nemotron"));
            let is_vllm = kind == ServerKind::Vllm;
            assert_eq!(
                fix.contains("nemotron_json --tool-parser-plugin FILE with the file"),
                is_vllm,
                "{fix}"
            );
        }
        let server = ServerFacts { flavour: ServerKind::Sglang, model: "MiniMax-M2".into() };
        assert!(reasoning_parser(&server).contains("--reasoning-parser minimax"));
    }

    #[test]
    fn every_server_has_a_fix_for_everything() {
        for (flavour, name) in ServerKind::NAMES {
            let server = ServerFacts { flavour, model: "qwen3".into() };
            for fix in [
                tool_parser(&server, None),
                reasoning_parser(&server),
                window(flavour),
                prefix_cache(flavour),
            ] {
                assert!(!fix.is_empty(), "{name}");
            }
        }
    }
}
