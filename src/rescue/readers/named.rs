//! A name, then its arguments as a JSON object.

use super::steps::{END, Keep, Step};

const ARGUMENTS: Step = Step::Json(Keep::Arguments, b"{", END);

/// Kimi and DeepSeek V3.1: the name, a token, the object. The index and namespace of Kimi's names are removed later.
pub(in super::super) static SEPARATED: [Step; 2] = [
    Step::Until(
        Keep::Name,
        &[("<|tool_call_argument_begin|>", 1), ("<｜tool▁sep｜>", 1), ("<|tool_sep|>", 1)],
    ),
    ARGUMENTS,
];

/// DeepSeek V3 and R1: the kind of the call, a token, the name, and the object in a fence.
pub(in super::super) static SEPARATED_FENCED: [Step; 5] = [
    Step::Words(&[("function<｜tool▁sep｜>", 1), ("function<|tool▁sep|>", 1)]),
    Step::Until(Keep::Name, &[("\n```json\n", 2)]),
    Step::Json(Keep::Arguments, b"{", 3),
    Step::Words(&[("```", END)]),
    ARGUMENTS,
];

/// Llama 3.1: `<function=NAME>{…}</function>`.
pub(in super::super) static SEPARATED_TAG: [Step; 2] = [Step::Until(Keep::Name, &[(">", 1)]), ARGUMENTS];

/// gpt-oss: the name, perhaps the word `json` and tokens, and the object.
pub(in super::super) static HARMONY: [Step; 2] = [Step::Until(Keep::Name, &[("<|message|>", 1)]), ARGUMENTS];

/// Mistral: `NAME[ARGS]{…}` or `NAME[CALL_ID]ID[ARGS]{…}`. Servers that hide special tokens leave `NAME{…}`.
pub(in super::super) static MISTRAL: [Step; 3] = [
    Step::Until(Keep::Name, &[("[ARGS]", 1), ("[CALL_ID]", 2), ("{", 1)]),
    ARGUMENTS,
    Step::Until(Keep::Nothing, &[("[ARGS]", 1)]),
];

/// The same behind no opening: the answer begins with the name. Kimi's calls look so where special tokens are hidden.
pub(in super::super) static NAMED: [Step; 2] =
    [Step::Until(Keep::Name, &[("[ARGS]", 1), ("<|tool_call_argument_begin|>", 1), ("{", 1)]), ARGUMENTS];
