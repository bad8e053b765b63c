//! Parameters in tags.

use super::steps::{END, Keep, Step};

/// The body of an `invoke` tag behind `invoke name="`. `$p` stands before the names of the tags, and `$keep` says what
/// a parameter's text is.
macro_rules! invoke {
    ($p:literal, $keep:ident) => {
        [
            Step::Until(Keep::Name, &[("\">", 1)]),
            Step::Words(&[(concat!("<", $p, "parameter name=\""), 2), (concat!("</", $p, "invoke>"), END)]),
            Step::Until(Keep::Key, &[("\" string=\"true\">", 4), ("\" string=\"false\">", 3), ("\">", 3)]),
            Step::Until(Keep::$keep, &[(concat!("</", $p, "parameter>"), 1)]),
            Step::Until(Keep::Exact, &[(concat!("</", $p, "parameter>"), 1)]),
        ]
    };
}

/// Models that were trained on Claude's answers.
pub(in super::super) static INVOKE: [Step; 5] = invoke!("", Text);

/// The same with the prefix that stands before all of these tags.
pub(in super::super) static INVOKE_PREFIXED: [Step; 5] = invoke!("antml:", Text);

/// MiniMax.
pub(in super::super) static INVOKE_LINES: [Step; 5] = invoke!("", Lines);

/// DeepSeek V3.2 and later.
pub(in super::super) static DSML: [Step; 5] = invoke!("｜DSML｜", Text);

/// Step 3.
pub(in super::super) static STEP_INVOKE: [Step; 5] = invoke!("steptml:", Text);

/// Qwen3-Coder, Qwen 3.5 and 3.6, Nemotron 3, Seed: the body behind `<function=`.
pub(in super::super) static PARAMETERS: [Step; 4] = [
    Step::Until(Keep::Name, &[(">", 1)]),
    Step::Words(&[("<parameter=", 2), ("</function>", END)]),
    Step::Until(Keep::Key, &[(">", 3)]),
    Step::Until(Keep::Lines, &[("</parameter>", 1)]),
];

/// GLM 4.5 and later: the body behind `<tool_call>`.
pub(in super::super) static PAIRS: [Step; 5] = [
    Step::Until(Keep::Name, &[("<arg_key>", 1), ("</tool_call>", END)]),
    Step::Until(Keep::Key, &[("</arg_key>", 2)]),
    Step::Words(&[("<arg_value>", 3)]),
    Step::Until(Keep::Text, &[("</arg_value>", 4)]),
    Step::Words(&[("<arg_key>", 1), ("</tool_call>", END)]),
];
