//! The table of forms: one row for each family of models.
//!
//! A row says how a call is framed, which reader reads its body, and which parser of a server would have recognized it.
//! The forms are those of the models' chat templates. A new family is a new row, with cases in `tests/rescue`.

use super::readers::{
    ARRAY, DSML, HARMONY, INVOKE, INVOKE_LINES, INVOKE_PREFIXED, MISTRAL, NAMED, OBJECT, PAIRS, PARAMETERS,
    PYTHON, SEPARATED, SEPARATED_FENCED, SEPARATED_TAG, STEP_INVOKE, Step,
};

/// How one family of models writes calls.
#[derive(Debug)]
pub struct CallFamily {
    /// Its name in logs.
    pub name: &'static str,
    /// The parser of vLLM and that of SGLang; `NAME` where no parser reads this form.
    pub vllm_parser: &'static str,
    /// The parser of SGLang.
    pub sglang_parser: &'static str,
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
    vllm_parser: "NAME",
    sglang_parser: "NAME",
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
        vllm_parser: "llama3_json",
        sglang_parser: "llama3",
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
        name: "deepseek_dsml",
        vllm_parser: "deepseek_v32",
        sglang_parser: "deepseekv32",
        section: &["<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"],
        section_end: &["</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"],
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
        name: "nemotron",
        vllm_parser: "nemotron_json",
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
        section: &["<|action_start|><|plugin|>", "<|action_start|> <|plugin|>"],
        section_end: &["<|action_end|>"],
        ..PLAIN
    },
    CallFamily {
        name: "command_r",
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
