//! The results of all tasks, and the advice that follows from them.

use super::ask::ExamAnswer;
use super::judge::{calls_of, has_think_marks, has_thinking, judge};
use super::task::{ExamAim, ExamTask};
use crate::dialect::{OWN_PARSER, ServerKind};
use crate::json;
use crate::rescue::{CallFamily, DROPPED_TOKENS_MIN};

/// The verdict on the answer to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskVerdict {
    /// It passes.
    Passed,
    /// It passes because sparkgap has repaired it in this way.
    Repaired(String),
    /// It does not pass, for this reason.
    Failed(String),
}

/// The result of a task.
#[derive(Clone, Debug)]
pub struct TaskResult {
    /// The task's name.
    pub name: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// The verdict.
    pub verdict: TaskVerdict,
    /// The speed of the answer in tokens a second, if it was long enough.
    pub speed: Option<f64>,
    /// The family of calls that were found in the text.
    family: Option<&'static CallFamily>,
    signs: TaskSigns,
}

/// Signs of a cause in an answer.
#[derive(Clone, Copy, Debug, Default)]
struct TaskSigns {
    is_answered: bool,
    wants_call: bool,
    has_call: bool,
    has_think_marks: bool,
    is_cut: bool,
    has_thinking: bool,
    is_dropped: bool,
    is_parsed: bool,
}

/// A row of the table: the results of one kind of task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindRow {
    /// The kind.
    pub kind: &'static str,
    /// The numbers of tasks that passed, that passed repaired, and that failed.
    pub counts: [usize; 3],
}

/// The results of an exam.
#[derive(Clone, Debug)]
pub struct ExamReport {
    /// The model that was examined, by its name at the upstream.
    pub model: String,
    /// The kind of its server.
    pub flavour: ServerKind,
    /// The results in the order of the tasks.
    pub results: Vec<TaskResult>,
    /// The changes to requests that the server's refusals called for.
    pub request_repairs: Vec<String>,
    /// False if nothing was repaired.
    pub repairs: bool,
    /// True if the server has stopped answering, so that the last tasks were not set.
    pub is_out: bool,
}

impl TaskResult {
    /// True if an error came in the place of an answer.
    pub fn is_unanswered(&self) -> bool {
        !self.signs.is_answered
    }

    /// Judges an answer, or takes the words of the error that came instead. `repairs`: false if an answer that passes only
    /// repaired is to fail.
    pub(super) fn of(task: &ExamTask, answer: Result<ExamAnswer, String>, repairs: bool) -> TaskResult {
        let mut signs =
            TaskSigns { wants_call: matches!(task.expected, ExamAim::Calls(_)), ..TaskSigns::default() };
        let (mut family, mut speed) = (None, None);
        let verdict = match answer {
            Err(words) => TaskVerdict::Failed(words),
            Ok(mut answer) => {
                (family, speed) = (answer.rescued.1, answer.speed);
                signs.is_answered = true;
                signs.is_parsed = answer.parsed_calls > 0;
                signs.is_dropped = answer.dropped_tokens >= DROPPED_TOKENS_MIN;
                let repaired = repairs_of(&answer);
                match json::parse(&mut answer.message) {
                    Err(error) => TaskVerdict::Failed(error.to_string()),
                    Ok(message) => {
                        signs.has_call = !calls_of(&message).is_empty();
                        signs.has_think_marks = has_think_marks(&message);
                        signs.has_thinking = has_thinking(&message);
                        signs.is_cut =
                            message.get("stop_reason").and_then(json::Value::as_str) == Some("max_tokens");
                        match (judge(&message, task.expected), repaired) {
                            (Err(why), _) => TaskVerdict::Failed(why),
                            (Ok(()), Some(how)) if repairs => TaskVerdict::Repaired(how),
                            (Ok(()), Some(how)) => {
                                TaskVerdict::Failed(format!("passes only repaired: {how}"))
                            }
                            (Ok(()), None) => TaskVerdict::Passed,
                        }
                    }
                }
            }
        };
        TaskResult { name: task.name, kind: task.kind, verdict, speed, family, signs }
    }
}

/// The repairs of an answer, in words. `None`: it needed none.
fn repairs_of(answer: &ExamAnswer) -> Option<String> {
    let (rescued, family) = answer.rescued;
    let (coerced, repaired) = answer.changes;
    let form = family.map_or("", |family| family.name);
    let parts = [
        (rescued > 0).then(|| format!("calls found in the text: {rescued}, in the form '{form}'")),
        (coerced > 0).then(|| format!("values given the type of their schema: {coerced}")),
        (repaired > 0).then(|| format!("places in arguments that were not JSON: {repaired}")),
        answer.has_looped.then(|| "a repeated line ended".to_owned()),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

impl ExamReport {
    /// The results by kind, in the order of the tasks.
    pub fn rows(&self) -> Vec<KindRow> {
        let mut rows: Vec<KindRow> = Vec::new();
        for result in &self.results {
            let at = match result.verdict {
                TaskVerdict::Passed => 0,
                TaskVerdict::Repaired(_) => 1,
                TaskVerdict::Failed(_) => 2,
            };
            if rows.last().is_none_or(|row| row.kind != result.kind) {
                rows.push(KindRow { kind: result.kind, counts: [0; 3] });
            }
            if let Some(count) = rows.last_mut().and_then(|row| row.counts.get_mut(at)) {
                *count += 1;
            }
        }
        rows
    }

    /// True if no task has an answer: the server refused each of them, or does not answer.
    pub fn is_unanswered(&self) -> bool {
        self.results.iter().all(|result| !result.signs.is_answered)
    }

    /// The median speed of the answers, in tokens a second.
    pub fn speed(&self) -> Option<f64> {
        let mut speeds: Vec<f64> = self.results.iter().filter_map(|result| result.speed).collect();
        speeds.sort_by(f64::total_cmp);
        speeds.get(speeds.len() / 2).copied()
    }

    /// The changes to the server or the configuration that would help, by the signs in the answers.
    pub fn advice(&self) -> Vec<String> {
        let fixes = &self.flavour.dialect().fixes;
        let mut advice = Vec::new();
        let signs = || self.results.iter().map(|result| result.signs);
        let family = self.results.iter().find_map(|result| result.family);
        // An error in the place of an answer says nothing of a parser.
        let has_no_call = !signs().any(|signs| signs.has_call)
            && signs().any(|signs| signs.wants_call && signs.is_answered);
        // A server that recognizes other calls has the right parser: then the model has slipped.
        let is_dropped = signs().any(|signs| signs.is_dropped) && !signs().any(|signs| signs.is_parsed);
        if family.is_some() || has_no_call || is_dropped {
            let shown = family.or_else(|| CallFamily::of_model(&self.model));
            let parser = shown.map_or(OWN_PARSER, |family| family.parser_at(self.flavour));
            let why = match (family, is_dropped) {
                (Some(_), _) => "calls came as text",
                (None, true) => "the server counted answers that it did not show, perhaps calls",
                (None, false) => "no answer had a call",
            };
            advice.push(format!("{why}: {}", fixes.with_tool_parser(parser)));
        }
        if signs().any(|signs| signs.has_think_marks) {
            let parser = self.flavour.reasoning_parser_of(&self.model);
            advice.push(format!("reasoning came as text: {}", fixes.with_reasoning_parser(parser)));
        }
        if signs().any(|signs| signs.is_cut && signs.has_thinking) {
            advice.push("answers met their limit while the model thought: set thinking = \"off\" for this upstream in a Lua file, or choose another model".to_owned());
        }
        advice
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exam::tasks::TASKS;

    fn answer(content: &str, reason: &str) -> ExamAnswer {
        ExamAnswer {
            message: format!(r#"{{"content":[{content}],"stop_reason":"{reason}"}}"#).into_bytes(),
            rescued: (0, None),
            changes: (0, 0),
            has_looped: false,
            parsed_calls: 0,
            dropped_tokens: 0,
            speed: Some(10.0),
        }
    }

    const READ: &str =
        r#"{"type":"tool_use","id":"t","name":"Read","input":{"file_path":"/srv/app/main.rs"}}"#;

    fn report(results: Vec<TaskResult>) -> ExamReport {
        let (flavour, request_repairs) = (ServerKind::Vllm, Vec::new());
        ExamReport { model: "qwen3".into(), flavour, results, request_repairs, repairs: true, is_out: false }
    }

    fn judged(answer: Result<ExamAnswer, String>) -> TaskResult {
        TaskResult::of(&TASKS[0], answer, true)
    }

    #[test]
    fn without_repairs_a_repaired_answer_fails() {
        let repaired = ExamAnswer { changes: (0, 1), ..answer(READ, "tool_use") };
        let told = TaskResult::of(&TASKS[0], Ok(repaired), false).verdict;
        assert!(
            matches!(&told, TaskVerdict::Failed(why) if why.starts_with("passes only repaired: places")),
            "{told:?}"
        );
    }

    #[test]
    fn each_sign_has_its_advice() {
        let advice = |answer: ExamAnswer| report(vec![judged(Ok(answer))]).advice();
        let blank = ExamAnswer { dropped_tokens: 22, ..answer("", "end_turn") };
        assert!(advice(blank)[0].starts_with("the server counted answers"));
        let thought = r#"{"type":"thinking","thinking":"Hm."}"#;
        let cut =
            |content| advice(answer(content, "max_tokens")).iter().any(|text| text.contains("thinking = "));
        assert!(cut(thought) && !cut(r#"{"type":"text","text":"one one"}"#));
    }

    #[test]
    fn refused_tasks_give_no_advice() {
        let refused = || judged(Err("bad key".into()));
        let all = report(vec![refused(), refused()]);
        assert!(all.is_unanswered() && all.advice().is_empty());
        let some = report(vec![refused(), judged(Ok(answer("", "end_turn")))]);
        assert!(!some.is_unanswered() && !some.advice().is_empty());
    }

    #[test]
    fn verdicts_are_counted_by_kind() {
        let family = crate::rescue::FAMILIES.first();
        let repaired = ExamAnswer { rescued: (1, family), ..answer(READ, "tool_use") };
        let text = r#"{"type":"text","text":"</think>I would read it."}"#;
        let results = vec![
            judged(Ok(answer(READ, "tool_use"))),
            judged(Ok(repaired.clone())),
            judged(Ok(answer(text, "end_turn"))),
            TaskResult::of(&TASKS[3], Err("no route".into()), true),
        ];
        let report = report(results);
        let counts: Vec<[usize; 3]> = report.rows().iter().map(|row| row.counts).collect();
        assert_eq!(counts, [[1, 1, 1], [0, 0, 1]]);
        assert_eq!(report.speed(), Some(10.0));
        let advice = report.advice();
        assert!(
            advice[0].starts_with("calls came as text: start vLLM with --enable-auto-tool-choice"),
            "{advice:?}"
        );
        assert!(advice[1].contains("--reasoning-parser qwen3"), "{advice:?}");
        assert_eq!(report.results[3].verdict, TaskVerdict::Failed("no route".into()));
    }

    #[test]
    fn without_any_call_the_model_names_the_parser_and_without_signs_nothing_is() {
        let text = r#"{"type":"text","text":"I would."}"#;
        let advice = report(vec![judged(Ok(answer(text, "end_turn")))]).advice();
        assert!(advice[0].contains("--tool-call-parser qwen3_coder"), "{advice:?}");
        let good = report(vec![judged(Ok(answer(READ, "tool_use")))]);
        assert!(good.advice().is_empty());
        assert_eq!(report(Vec::new()).speed(), None);
    }
}
