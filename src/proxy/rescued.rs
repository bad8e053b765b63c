//! Tool calls that a server did not recognize: the warning about those that came as text, and the way to those that it
//! dropped.

use super::exchange::Summary;
use crate::anthropic::StopReason;
use crate::fleet::{Gateway, Resolved};
use crate::rescue::{CallFamily, DROPPED_TOKENS_MIN};

/// Warns, once for each model and form, that calls came as text, with the flag of the server that would recognize them.
pub(super) fn warn_about(gateway: &Gateway, resolved: &Resolved, family: &CallFamily) {
    let fix = resolved.flavour.dialect().fixes.with_tool_parser(family.parser_at(resolved.flavour));
    let what = format!(
        "tool calls came as text in the form '{}', and were passed on as calls; so that the server recognizes them, {fix}",
        family.name
    );
    gateway.warn_once(&what, &format!("{} {} at {}", family.name, resolved.model, resolved.served.name()));
}

/// Learns from an answer whether the server recognizes the model's calls. If it has dropped the end of this one, and never
/// recognized a call, its parser is that of another model.
pub(super) fn learn_calls(resolved: &Resolved, summary: &Summary) {
    let has_calls = matches!(summary.end, Some((StopReason::ToolUse, _)));
    if has_calls && summary.rescued.0 == 0 {
        resolved.learn_parsed_call();
    } else if summary.dropped_tokens >= DROPPED_TOKENS_MIN && resolved.flavour.dialect().shows_calls_as_text {
        resolved.learn_dropped_call();
    }
}
