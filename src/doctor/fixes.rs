//! The flags that repair each kind of server.

use super::verdict::Server;
use crate::dialect::Flavour;

/// A context window, in tokens, that suits Claude Code well.
pub(super) const WINDOW_GOOD: u64 = 131_072;

/// The flag that turns on the parsing of tool calls.
pub(super) fn tool_parser(server: &Server) -> String {
    let parser = tool_parser_name(&server.model);
    let choose = if parser == "NAME" { " with the parser of your model for NAME" } else { "" };
    match server.flavour {
        Flavour::Vllm => {
            format!("start vLLM with --enable-auto-tool-choice --tool-call-parser {parser}{choose}")
        }
        Flavour::Sglang => format!("start SGLang with --tool-call-parser {parser}{choose}"),
        Flavour::LlamaCpp => {
            "start llama-server with --jinja, without --skip-chat-parsing, and with a GGUF whose chat template has tools"
                .into()
        }
        Flavour::Ollama => "pull a model that ollama.com tags with \"tools\"".into(),
        Flavour::LmStudio | Flavour::Unknown | Flavour::OpenAi => {
            "turn tool calling on at the server, or choose a model that has it".into()
        }
    }
}

/// The name of the tool parser for a model, found by parts of the model's name. vLLM and SGLang use the same names.
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

/// The flag that turns on the parsing of reasoning.
pub(super) fn reasoning_parser(server: &Server) -> String {
    let is_qwen = server.model.to_ascii_lowercase().contains("qwen");
    let parser = if is_qwen { "qwen3" } else { "NAME with the parser of your model for NAME" };
    match server.flavour {
        Flavour::Vllm => format!("start vLLM with --reasoning-parser {parser}"),
        Flavour::Sglang => format!("start SGLang with --reasoning-parser {parser}"),
        Flavour::LlamaCpp => {
            "start llama-server with --jinja --reasoning-format deepseek, without --skip-chat-parsing".into()
        }
        Flavour::Ollama | Flavour::LmStudio | Flavour::Unknown | Flavour::OpenAi => {
            "turn on reasoning parsing at the server, or set think_tags = true for this upstream in a Lua file".into()
        }
    }
}

/// The flag that makes the window larger.
pub(super) fn window(flavour: Flavour) -> String {
    match flavour {
        Flavour::Vllm => format!("start vLLM with --max-model-len {WINDOW_GOOD}, or as much as fits"),
        Flavour::Sglang => format!("start SGLang with --context-length {WINDOW_GOOD}, or as much as fits"),
        Flavour::LlamaCpp => {
            format!("start llama-server with -c {WINDOW_GOOD} -np 1: its -c is shared among its -np slots")
        }
        Flavour::Ollama => {
            format!("start Ollama with OLLAMA_CONTEXT_LENGTH={WINDOW_GOOD}, or as much as fits")
        }
        Flavour::LmStudio | Flavour::Unknown | Flavour::OpenAi => {
            "load the model with a larger context".into()
        }
    }
}

/// The setting for a server that does not report its window.
pub(super) fn untold_window() -> String {
    "set window = TOKENS for this upstream in a Lua file".into()
}

/// The flag that makes the server report cached tokens; `None` if the server needs none.
pub(super) fn cached_tokens(flavour: Flavour) -> Option<String> {
    match flavour {
        Flavour::Vllm => Some("start vLLM with --enable-prompt-tokens-details".into()),
        Flavour::Sglang => Some("start SGLang with --enable-cache-report".into()),
        Flavour::LlamaCpp | Flavour::Ollama | Flavour::LmStudio | Flavour::Unknown | Flavour::OpenAi => None,
    }
}

/// The flag that turns on the prefix cache.
pub(super) fn prefix_cache(flavour: Flavour) -> String {
    match flavour {
        Flavour::Vllm => "start vLLM without --no-enable-prefix-caching".into(),
        Flavour::Sglang => "start SGLang without --disable-radix-cache".into(),
        Flavour::LlamaCpp => "start llama-server without --no-cache-prompt".into(),
        Flavour::Ollama | Flavour::LmStudio | Flavour::Unknown | Flavour::OpenAi => {
            "turn prefix caching on at the server".into()
        }
    }
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
            let fix = tool_parser(&Server { flavour: Flavour::Vllm, model: model.into() });
            assert!(fix.contains(expected), "{model}: {fix}");
        }
    }

    #[test]
    fn every_server_has_a_fix_for_everything() {
        for (flavour, name) in Flavour::NAMES {
            let server = Server { flavour, model: "qwen3".into() };
            for fix in
                [tool_parser(&server), reasoning_parser(&server), window(flavour), prefix_cache(flavour)]
            {
                assert!(!fix.is_empty(), "{name}");
            }
        }
    }
}
