//! The advice for each point: which flag of the server to change. Its words stand in the table of server kinds.

use super::verdict::ServerFacts;
use crate::dialect::ServerKind;

/// A window in which Claude Code is at ease.
pub(super) const WINDOW_GOOD: u64 = 131_072;

/// Turns on the parsing of tool calls.
pub(super) fn tool_parser(server: &ServerFacts) -> String {
    let parser = tool_parser_name(&server.model);
    let choose = if parser == "NAME" { " with the parser of your model for NAME" } else { "" };
    let fix = server.flavour.dialect().fixes.tool_parser;
    fix.replace("{parser}", &format!("{parser}{choose}"))
}

/// By what the names of models hold. vLLM and SGLang share these names of parsers.
fn tool_parser_name(model: &str) -> &'static str {
    const PARSERS: [(&str, &str); 6] = [
        ("qwen2", "hermes"),
        ("qwen", "qwen3_coder"),
        ("hermes", "hermes"),
        ("mistral", "mistral"),
        ("devstral", "mistral"),
        ("gpt-oss", "openai"),
    ];
    let model = model.to_ascii_lowercase();
    PARSERS.iter().find(|(part, _)| model.contains(part)).map_or("NAME", |(_, parser)| parser)
}

/// Turns on the parsing of reasoning.
pub(super) fn reasoning_parser(server: &ServerFacts) -> String {
    let is_qwen = server.model.to_ascii_lowercase().contains("qwen");
    let parser = if is_qwen { "qwen3" } else { "NAME with the parser of your model for NAME" };
    server.flavour.dialect().fixes.reasoning_parser.replace("{parser}", parser)
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
    fn the_parser_goes_by_the_model() {
        for (model, expected) in [
            ("Intel/Qwen3.6-35B-A3B-int4-AutoRound", "--tool-call-parser qwen3_coder"),
            ("Qwen2.5-7B", "--tool-call-parser hermes"),
            ("openai/gpt-oss-20b", "--tool-call-parser openai"),
            ("other", "--tool-call-parser NAME with the parser of your model"),
        ] {
            let fix = tool_parser(&ServerFacts { flavour: ServerKind::Vllm, model: model.into() });
            assert!(fix.contains(expected), "{model}: {fix}");
        }
    }

    #[test]
    fn every_server_has_a_fix_for_everything() {
        for (flavour, name) in ServerKind::NAMES {
            let server = ServerFacts { flavour, model: "qwen3".into() };
            for fix in
                [tool_parser(&server), reasoning_parser(&server), window(flavour), prefix_cache(flavour)]
            {
                assert!(!fix.is_empty(), "{name}");
            }
        }
    }
}
