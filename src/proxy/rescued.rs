//! The warning about tool calls that a server did not recognize.

use crate::dialect::ServerKind;
use crate::fleet::{Gateway, Resolved};
use crate::rescue::CallFamily;

/// Warns, once for each model and form, that calls came as text, with the flag of the server that would recognize them.
pub(super) fn warn_about(gateway: &Gateway, resolved: &Resolved, family: &CallFamily) {
    let parser = match resolved.flavour {
        ServerKind::Sglang => family.sglang_parser,
        _ => family.vllm_parser,
    };
    let choose = if parser == "NAME" { " with the parser of your model for NAME" } else { "" };
    let fix = resolved.flavour.dialect().fixes.tool_parser;
    let fix = fix.replace("{parser}", &format!("{parser}{choose}"));
    let what = format!(
        "tool calls came as text in the form '{}', and were passed on as calls; so that the server recognizes them, {fix}",
        family.name
    );
    gateway.warn_once(&what, &format!("{} {} at {}", family.name, resolved.model, resolved.served.name()));
}
