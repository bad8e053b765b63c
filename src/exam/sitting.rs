//! The exam of one upstream, task by task.

use std::fmt::Write as _;
use std::time::Duration;

use super::ask::{Examinee, NoAnswer};
use super::report::{ExamReport, TaskResult};
use super::task::{ExamAim, ExamTask};
use super::tasks::TASKS;
use super::tools::tools_json;
use crate::fleet::Upstream;
use crate::openai::Repair;
use crate::settings::LoopMode;

/// The token limit of an answer, and of one in which the model thinks.
const TOKENS_MAX: u64 = 1024;
const THOUGHT_TOKENS_MAX: u64 = 8192;

/// The tasks without an answer, one after the other, after which a server is not asked any more: it hangs, or has ended.
const LOST_MAX: usize = 3;

/// How an exam is held.
#[derive(Clone, Copy, Debug)]
pub struct ExamPlan {
    /// False to see what the model and its server do without sparkgap's repairs.
    pub repairs: bool,
    /// The longest time of one answer.
    pub time: Duration,
}

const SYSTEM: &str = "You are a coding agent in a terminal. Follow the user's instruction exactly. Call tools when they \
                      are asked for; tools may be called in parallel. Answer briefly.";

/// Sets all tasks to a model of an upstream, one after the other. `model`: its name at the upstream; without one the
/// upstream's own. `on_task` gets the name of each task before it is set.
///
/// # Errors
/// The upstream does not answer, or has no model. Once it has answered, every failure is a result.
pub fn sit_exam(
    upstream: &Upstream,
    model: Option<&str>,
    plan: ExamPlan,
    on_task: &mut dyn FnMut(&'static str),
) -> Result<ExamReport, String> {
    if upstream.speaks_messages() {
        let name = upstream.name();
        return Err(format!(
            "upstream {name} speaks the Messages API: the exam is for upstreams with chat completions"
        ));
    }
    let found = upstream.discover().map_err(|failure| format!("upstream {}: {failure}", upstream.name()))?;
    let named =
        model.map(str::to_owned).or_else(|| upstream.config().model.clone()).or_else(|| upstream.model());
    let model =
        named.ok_or_else(|| format!("upstream {} lists no model: name one with --model", upstream.name()))?;
    let ExamPlan { repairs, time } = plan;
    let mut settings = upstream.config().settings.clone();
    if !repairs {
        (settings.rescue_tool_calls, settings.coerce_arguments, settings.loops) =
            (false, false, LoopMode::Off);
    }
    let flavour = settings.flavour.unwrap_or(found.flavour);
    let window = settings.window.or_else(|| found.window(&model));
    let known = if repairs { Repair::known(&model, found.refuses_extensions()) } else { Vec::new() };
    let mut examinee = Examinee {
        upstream,
        flavour,
        window,
        settings,
        parses_calls: false,
        time,
        may_repair: repairs,
        repairs: known.clone(),
        model: model.clone(),
    };
    let tools = tools_json();
    let (mut results, mut lost) = (Vec::new(), 0);
    for task in &TASKS {
        let answer = if lost < LOST_MAX {
            on_task(task.name);
            examinee.ask(request(task, &tools).into_bytes())
        } else {
            Err(NoAnswer { words: "not asked: the server has stopped answering".into(), is_lost: true })
        };
        lost = if answer.as_ref().is_err_and(|failure| failure.is_lost) { lost + 1 } else { 0 };
        results.push(TaskResult::of(task, answer.map_err(|failure| failure.words), repairs));
    }
    let learned = examinee.repairs.iter().filter(|repair| !known.contains(repair));
    let request_repairs = learned.map(ToString::to_string).collect();
    let is_out = lost >= LOST_MAX;
    Ok(ExamReport { model, flavour, results, request_repairs, repairs, is_out })
}

/// The request of a task.
fn request(task: &ExamTask, tools: &str) -> String {
    let tokens = if task.more.contains("thinking") { THOUGHT_TOKENS_MAX } else { TOKENS_MAX };
    let mut json = format!(
        r#"{{"model":"exam","max_tokens":{tokens},"temperature":0,"stream":true,"system":"{SYSTEM}"{}"#,
        task.more
    );
    if !task.more.contains("thinking") {
        json.push_str(r#","thinking":{"type":"disabled"}"#);
    }
    // Claude Code's requests for an answer in JSON have no tools, and some servers take only the one or the other.
    if !matches!(task.expected, ExamAim::Json(..)) {
        let _ = write!(json, r#","tools":{tools}"#);
    }
    json.push_str(r#","messages":["#);
    for turn in 1..=task.earlier_turns {
        let _ = write!(
            json,
            r#"{{"role":"user","content":"Look at module_{turn}.rs."}},{{"role":"assistant","content":[{{"type":"tool_use","id":"toolu_h{turn}","name":"Read","input":{{"file_path":"/srv/app/module_{turn}.rs"}}}}]}},{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"toolu_h{turn}","content":"//! Module {turn} of the app.\nuse crate::wheel::Spoke;\n\n/// Returns the number of module {turn}.\npub fn number() -> u32 {{\n    {turn}0{turn}\n}}\n"}}]}},{{"role":"assistant","content":"module_{turn}.rs has one function, which returns {turn}0{turn}."}},"#
        );
    }
    json.push_str(task.messages);
    json.push_str("]}");
    json
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::anthropic::MessagesRequest;
    use crate::json;

    #[test]
    fn every_task_is_a_valid_request_and_there_are_three_of_each_kind() {
        let tools = tools_json();
        let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
        let mut names = Vec::new();
        for task in &TASKS {
            let mut bytes = request(task, &tools).into_bytes();
            let body = json::parse(&mut bytes).unwrap_or_else(|error| panic!("{}: {error}", task.name));
            let read = MessagesRequest::read(&body).unwrap_or_else(|error| panic!("{}: {error}", task.name));
            assert_eq!(read.tools.len(), if matches!(task.expected, ExamAim::Json(..)) { 0 } else { 24 });
            *kinds.entry(task.kind).or_default() += 1;
            assert!(!names.contains(&task.name), "{}", task.name);
            names.push(task.name);
        }
        assert!(kinds.len() == 10 && kinds.values().all(|count| *count == 3), "{kinds:?}");
    }
}
