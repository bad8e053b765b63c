//! The table of forms: one row for each family of models.
//!
//! A row says how a call is framed, which reader reads its body, and which parser of a server would have recognized it.
//! The forms are those of the models' chat templates. A new family is a new row, with cases in `tests/rescue`.
//!
//! The names of parsers are those of vLLM 0.32 (`vllm serve --help=tool-call-parser`; each was compared with the marks in the
//! parser's source) and of SGLang (`ToolCallParserEnum` in its `function_call_parser.py`, November 2026). llama.cpp, Ollama
//! and LM Studio have no such names: they go by the model's chat template.

use crate::dialect::{OWN_PARSER, ServerKind};

use super::readers::{
    ARRAY, DSML, HARMONY, INVOKE, INVOKE_LINES, INVOKE_PREFIXED, MISTRAL, NAMED, OBJECT, PAIRS, PARAMETERS,
    PYTHON, SEPARATED, SEPARATED_FENCED, SEPARATED_TAG, STEP_INVOKE, Step,
};

/// How one family of models writes calls.
#[derive(Debug)]
pub struct CallFamily {
    /// Its name in logs.
    pub name: &'static str,
    /// The name of vLLM's parser; [`OWN_PARSER`] where none reads this form.
    pub(super) vllm_parser: &'static str,
    /// The name of SGLang's parser; [`OWN_PARSER`] where none reads this form.
    pub(super) sglang_parser: &'static str,
    /// True if only a whole answer counts: the opening is too common in ordinary text.
    pub is_whole_answer: bool,
    /// The words that may open the section of all calls. A section may be left out if `open` has a tag of its own.
    pub(super) section: &'static [&'static str],
    /// The words that may close the section.
    pub(super) section_end: &'static [&'static str],
    /// The words that open one call. A word `{` or `[` belongs to the body; an empty word opens with any byte.
    pub(super) open: &'static [&'static str],
    /// The body.
    pub(super) body: &'static [Step],
    /// The words that may close a call behind its body.
    pub(super) close: &'static [&'static str],
}

impl CallFamily {
    /// The family of this name in logs.
    pub fn named(name: &str) -> Option<&'static CallFamily> {
        FAMILIES.iter().find(|family| family.name == name)
    }

    /// The name of the parser that recognizes this form at a server of this kind, as its flag takes it; [`OWN_PARSER`] where
    /// none does.
    pub fn parser_at(&self, kind: ServerKind) -> &'static str {
        if kind == ServerKind::Sglang { self.sglang_parser } else { self.vllm_parser }
    }

    /// The words by which the beginning of a call is noticed. An empty word stands for the name of an offered tool.
    pub(super) fn triggers(&self) -> impl Iterator<Item = &'static str> {
        let is_tag = |word: &&&str| word.starts_with('<') || self.section.is_empty();
        self.section.iter().chain(self.open.iter().filter(is_tag)).copied()
    }
}

/// Tokens that end a model's turn. Some servers leave them in the text.
pub(super) const TURN_ENDS: &[&str] = &[
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|call|>",
    "<|return|>",
    "<|observation|>",
    "<|user|>",
    "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>",
    "<end_of_turn>",
    "[e~[",
    "</s>",
];

/// Between two calls.
pub(super) const SEPARATORS: &[&str] = &[",", ";"];

/// A row that only the differences are written for.
const PLAIN: CallFamily = CallFamily {
    name: "",
    vllm_parser: OWN_PARSER,
    sglang_parser: OWN_PARSER,
    is_whole_answer: false,
    section: &[],
    section_end: &[],
    open: &["{", "["],
    body: &ARRAY,
    close: &[],
};

/// All families. Of several rows that read the same text the first one counts.
pub static FAMILIES: &[CallFamily] = &[
    CallFamily {
        name: "hermes",
        vllm_parser: "hermes",
        sglang_parser: "qwen",
        section: &["<tool_call>"],
        section_end: &["</tool_call>"],
        ..PLAIN
    },
    CallFamily {
        name: "qwen3_coder",
        vllm_parser: "qwen3_coder",
        sglang_parser: "qwen3_coder",
        section: &["<tool_call>"],
        section_end: &["</tool_call>"],
        open: &["<function="],
        body: &PARAMETERS,
        ..PLAIN
    },
    CallFamily {
        name: "llama_function",
        open: &["<function="],
        body: &SEPARATED_TAG,
        close: &["</function>"],
        ..PLAIN
    },
    CallFamily {
        name: "glm",
        vllm_parser: "glm45",
        sglang_parser: "glm45",
        open: &["<tool_call>"],
        body: &PAIRS,
        ..PLAIN
    },
    CallFamily {
        name: "kimi_k2",
        vllm_parser: "kimi_k2",
        sglang_parser: "kimi_k2",
        section: &["<|tool_calls_section_begin|>"],
        section_end: &["<|tool_calls_section_end|>"],
        open: &["<|tool_call_begin|>"],
        body: &SEPARATED,
        close: &["<|tool_call_end|>"],
        ..PLAIN
    },
    CallFamily {
        name: "deepseek_v3",
        vllm_parser: "deepseek_v3",
        sglang_parser: "deepseekv3",
        section: &["<｜tool▁calls▁begin｜>", "<|tool▁calls▁begin|>"],
        section_end: &["<｜tool▁calls▁end｜>", "<|tool▁calls▁end|>"],
        open: &["<｜tool▁call▁begin｜>", "<|tool▁call▁begin|>"],
        body: &SEPARATED_FENCED,
        close: &["<｜tool▁call▁end｜>", "<|tool▁call▁end|>"],
        ..PLAIN
    },
    CallFamily {
        name: "deepseek_v31",
        vllm_parser: "deepseek_v31",
        sglang_parser: "deepseekv31",
        section: &["<｜tool▁calls▁begin｜>"],
        section_end: &["<｜tool▁calls▁end｜>"],
        open: &["<｜tool▁call▁begin｜>"],
        body: &SEPARATED,
        close: &["<｜tool▁call▁end｜>"],
        ..PLAIN
    },
    CallFamily {
        name: "deepseek_v32",
        vllm_parser: "deepseek_v32",
        sglang_parser: "deepseekv32",
        section: &["<｜DSML｜function_calls>"],
        section_end: &["</｜DSML｜function_calls>"],
        open: &["<｜DSML｜invoke name=\""],
        body: &DSML,
        ..PLAIN
    },
    CallFamily {
        name: "deepseek_v4",
        vllm_parser: "deepseek_v4",
        sglang_parser: "deepseekv4",
        section: &["<｜DSML｜tool_calls>"],
        section_end: &["</｜DSML｜tool_calls>"],
        open: &["<｜DSML｜invoke name=\""],
        body: &DSML,
        ..PLAIN
    },
    CallFamily {
        name: "invoke",
        section: &["<function_calls>", "<tool_calls>", "<tool_call>"],
        section_end: &["</function_calls>", "</tool_calls>", "</tool_call>"],
        open: &["<invoke name=\""],
        body: &INVOKE,
        ..PLAIN
    },
    CallFamily {
        name: "invoke_prefixed",
        section: &["<antml:function_calls>"],
        section_end: &["</antml:function_calls>"],
        open: &["<antml:invoke name=\""],
        body: &INVOKE_PREFIXED,
        ..PLAIN
    },
    CallFamily {
        name: "minimax_m2",
        vllm_parser: "minimax_m2",
        sglang_parser: "minimax-m2",
        section: &["<minimax:tool_call>"],
        section_end: &["</minimax:tool_call>"],
        open: &["<invoke name=\""],
        body: &INVOKE_LINES,
        ..PLAIN
    },
    // MiniMax M1, Hunyuan, Jamba.
    CallFamily {
        name: "tool_calls",
        vllm_parser: "hunyuan_a13b",
        section: &["<tool_calls>"],
        section_end: &["</tool_calls>"],
        ..PLAIN
    },
    CallFamily {
        name: "mistral",
        vllm_parser: "mistral",
        sglang_parser: "mistral",
        section: &["[TOOL_CALLS]"],
        ..PLAIN
    },
    CallFamily {
        name: "mistral_named",
        vllm_parser: "mistral",
        sglang_parser: "mistral",
        section: &["[TOOL_CALLS]"],
        open: &[""],
        body: &MISTRAL,
        ..PLAIN
    },
    CallFamily {
        name: "llama3_json",
        vllm_parser: "llama3_json",
        sglang_parser: "llama3",
        section: &["<|python_tag|>"],
        open: &["{"],
        body: &OBJECT,
        ..PLAIN
    },
    CallFamily {
        name: "llama4_pythonic",
        vllm_parser: "llama4_pythonic",
        sglang_parser: "pythonic",
        section: &["<|python_start|>"],
        section_end: &["<|python_end|>"],
        open: &["["],
        body: &PYTHON,
        ..PLAIN
    },
    CallFamily {
        name: "lfm2",
        vllm_parser: "lfm2",
        sglang_parser: "lfm2",
        section: &["<|tool_call_start|>"],
        section_end: &["<|tool_call_end|>"],
        open: &["["],
        body: &PYTHON,
        ..PLAIN
    },
    CallFamily {
        name: "harmony",
        vllm_parser: "openai",
        sglang_parser: "gpt-oss",
        open: &[
            "<|channel|>commentary to=",
            "<|channel|>analysis to=",
            "<|start|>assistant<|channel|>commentary to=",
            "<|start|>assistant<|channel|>analysis to=",
            "<|start|>assistant to=",
        ],
        body: &HARMONY,
        close: &["<|call|>"],
        ..PLAIN
    },
    CallFamily {
        name: "seed_oss",
        vllm_parser: "seed_oss",
        section: &["<seed:tool_call>"],
        section_end: &["</seed:tool_call>"],
        open: &["<function="],
        body: &PARAMETERS,
        ..PLAIN
    },
    CallFamily {
        // This parser is a file that comes with the model.
        name: "nemotron",
        vllm_parser: "nemotron_json --tool-parser-plugin FILE",
        section: &["<TOOLCALL>"],
        section_end: &["</TOOLCALL>"],
        ..PLAIN
    },
    // Granite 3, and Phi-4-mini, which closes the section.
    CallFamily {
        name: "granite",
        vllm_parser: "granite",
        section: &["<|tool_call|>", "<function_call>"],
        section_end: &["<|/tool_call|>", "</function_call>"],
        ..PLAIN
    },
    CallFamily {
        name: "internlm",
        vllm_parser: "internlm",
        sglang_parser: "interns1",
        section: &["<|action_start|><|plugin|>", "<|action_start|> <|plugin|>"],
        section_end: &["<|action_end|>"],
        ..PLAIN
    },
    CallFamily {
        name: "command_r",
        vllm_parser: "cohere_command3",
        sglang_parser: "cohere_command4",
        section: &["<|START_ACTION|>"],
        section_end: &["<|END_ACTION|>"],
        ..PLAIN
    },
    CallFamily {
        name: "step3",
        vllm_parser: "step3",
        sglang_parser: "step3",
        section: &["<｜tool_calls_begin｜>"],
        section_end: &["<｜tool_calls_end｜>"],
        open: &["<｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name=\""],
        body: &STEP_INVOKE,
        close: &["<｜tool_call_end｜>"],
        ..PLAIN
    },
    CallFamily {
        name: "bare_json",
        vllm_parser: "llama3_json",
        sglang_parser: "llama3",
        is_whole_answer: true,
        ..PLAIN
    },
    CallFamily {
        name: "pythonic",
        vllm_parser: "pythonic",
        sglang_parser: "pythonic",
        is_whole_answer: true,
        open: &["["],
        body: &PYTHON,
        ..PLAIN
    },
    CallFamily {
        name: "phi4_mini",
        vllm_parser: "phi4_mini_json",
        is_whole_answer: true,
        section: &["functools"],
        ..PLAIN
    },
    CallFamily {
        name: "fenced_json",
        is_whole_answer: true,
        section: &["```json", "```tool_call", "```\n"],
        section_end: &["```"],
        ..PLAIN
    },
    CallFamily {
        name: "named_json",
        vllm_parser: "mistral",
        sglang_parser: "mistral",
        is_whole_answer: true,
        open: &[""],
        body: &NAMED,
        ..PLAIN
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The parsers of vLLM 0.32 that read a form of this table.
    const VLLM: &[&str] = &[
        "cohere_command3",
        "deepseek_v3",
        "deepseek_v31",
        "deepseek_v32",
        "deepseek_v4",
        "glm45",
        "granite",
        "hermes",
        "hunyuan_a13b",
        "internlm",
        "kimi_k2",
        "lfm2",
        "llama3_json",
        "llama4_pythonic",
        "minimax_m2",
        "mistral",
        "nemotron_json --tool-parser-plugin FILE",
        "openai",
        "phi4_mini_json",
        "pythonic",
        "qwen3_coder",
        "seed_oss",
        "step3",
    ];

    /// Those of SGLang.
    const SGLANG: &[&str] = &[
        "cohere_command4",
        "deepseekv3",
        "deepseekv31",
        "deepseekv32",
        "deepseekv4",
        "glm45",
        "gpt-oss",
        "interns1",
        "kimi_k2",
        "lfm2",
        "llama3",
        "minimax-m2",
        "mistral",
        "pythonic",
        "qwen",
        "qwen3_coder",
        "step3",
    ];

    #[test]
    fn every_name_of_a_parser_is_one_that_the_server_has() {
        for (kind, known) in [(ServerKind::Vllm, VLLM), (ServerKind::Sglang, SGLANG)] {
            let used: Vec<&str> = FAMILIES.iter().map(|family| family.parser_at(kind)).collect();
            for name in used.iter().filter(|name| **name != OWN_PARSER) {
                assert!(known.contains(name), "{kind:?}: {name}");
            }
            for name in known {
                assert!(used.contains(name), "{kind:?}: no form has {name}");
            }
        }
        assert_eq!(
            CallFamily::named("hermes").map(|family| family.parser_at(ServerKind::Vllm)),
            Some("hermes")
        );
        assert!(CallFamily::named("none").is_none());
    }
}
