//! `exam`: sets a model tasks as Claude Code would, and prints how many it passes.

use std::fmt::Write as _;

use super::arguments::Exam;
use super::output::{Failed, print, print_json};
use super::progress::ProgressLine;
use crate::app::{DEMO, Sources};
use crate::demo;
use crate::exam::{ANSWER_TIME, ExamPlan, ExamReport, TASK_COUNT, TaskVerdict, sit_exam};
use crate::fleet::Upstream;
use crate::json::Value;
use crate::shown::ShownText;
use crate::transport;

/// `sparkgap exam`. Tasks that fail are a result, not a failure of the command; a server that stops answering is one.
pub(super) fn run(mut options: Exam) -> Result<(), Failed> {
    if let Some(file) = &options.ca_file {
        transport::trust(file).map_err(|why| format!("--ca-file: {why}"))?;
    }
    for url in options.upstream.iter_mut().filter(|url| *url == DEMO) {
        *url = demo::start().map_err(|error| format!("the demo could not start: {error}"))?;
    }
    let sources = Sources {
        upstreams: options.upstream,
        upstream_key_file: options.upstream_key_file,
        hooks: options.hooks,
        unsafe_hooks: false,
        litellm: None,
    };
    if !sources.name_upstreams() {
        return Err("name the server to examine with --upstream URL, or --upstream demo".to_owned());
    }
    let time = options.timeout.unwrap_or(ANSWER_TIME);
    let plan = ExamPlan { repairs: !options.no_repairs, time };
    let limits = transport::CallLimits { first_byte_timeout: time, idle_timeout: time, ..Default::default() };
    let progress = ProgressLine::new();
    let (mut told, mut failures) = (Vec::new(), Vec::new());
    for config in sources.load()?.config.upstreams {
        let upstream = Upstream::new(config, &limits)?;
        let mut done = 0;
        let report = sit_exam(&upstream, options.model.as_deref(), plan, &mut |task| {
            done += 1;
            progress.say(&format!("task {done} of {TASK_COUNT} at {}: {task}", upstream.name()));
        });
        progress.clear();
        // Another upstream's exam takes place all the same.
        match &report {
            Ok(report) if !options.json => print(&as_text(report, &upstream)),
            Ok(report) => told.push(as_json(report, &upstream)),
            Err(why) => told.push(Value::object([
                ("upstream", upstream.name().to_owned().into()),
                ("url", upstream.config().url.clone().into()),
                ("error", why.clone().into()),
            ])),
        }
        failures.extend(failure_of(report, upstream.name()));
    }
    if options.json {
        print_json(&told.into());
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// The reason why the exam of an upstream did not take place, or not to its end.
fn failure_of(report: Result<ExamReport, String>, upstream: &str) -> Option<String> {
    match report {
        Err(why) => Some(why),
        Ok(report) if report.is_out => {
            Some(format!("upstream {upstream} has stopped answering: see its log; doctor tells more"))
        }
        Ok(report) if report.is_unanswered() => {
            Some(format!("upstream {upstream} answered no task; its words stand in the report"))
        }
        Ok(_) => None,
    }
}

fn as_text(report: &ExamReport, upstream: &Upstream) -> String {
    let model = ShownText::new(&report.model);
    let without = if report.repairs { "" } else { ", without repairs" };
    let mut text = format!("{model} at {} ({}){without}\n", upstream.config().url, report.flavour.name());
    let _ = writeln!(text, "  {:20} {:>6}  {:>8}  {:>6}", "", "passed", "repaired", "failed");
    let mut line = |name: &str, counts: [usize; 3]| {
        let [passed, repaired, failed] = counts;
        let _ = writeln!(text, "  {name:20} {passed:>6}  {repaired:>8}  {failed:>6}");
    };
    let mut sums = [0; 3];
    report.rows().iter().for_each(|row| {
        line(row.kind, row.counts);
        sums.iter_mut().zip(row.counts).for_each(|(sum, count)| *sum += count);
    });
    line("all", sums);
    if let Some(speed) = report.speed() {
        let _ = writeln!(text, "  tokens a second: {speed:.1} (median)");
    }
    for (words, names) in unanswered(report) {
        let name = names.first().copied().unwrap_or_default();
        let others = match names.len() {
            1 => String::new(),
            count => format!(" and {} more tasks", count - 1),
        };
        let _ = writeln!(text, "  failed  {name}{others}: {}", ShownText::whole(words));
    }
    for result in report.results.iter().filter(|result| !result.is_unanswered()) {
        let (word, why) = match &result.verdict {
            TaskVerdict::Passed => continue,
            TaskVerdict::Repaired(how) => ("repaired", how),
            TaskVerdict::Failed(why) => ("failed", why),
        };
        let _ = writeln!(text, "  {word}  {}: {}", result.name, ShownText::whole(why));
    }
    for repair in &report.request_repairs {
        let _ = writeln!(text, "  changed  the requests: the model {}", ShownText::whole(repair));
    }
    for advice in report.advice() {
        let _ = writeln!(text, "  advice  {}", ShownText::whole(&advice));
    }
    text
}

/// The tasks without an answer by the words of their errors, so that each error is told once.
fn unanswered(report: &ExamReport) -> Vec<(&str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&'static str>)> = Vec::new();
    for result in report.results.iter().filter(|result| result.is_unanswered()) {
        let TaskVerdict::Failed(why) = &result.verdict else { continue };
        match groups.iter_mut().find(|(words, _)| words == why) {
            Some((_, names)) => names.push(result.name),
            None => groups.push((why, vec![result.name])),
        }
    }
    groups
}

fn as_json(report: &ExamReport, upstream: &Upstream) -> Value<'static> {
    let number = |count: usize| Value::from(count as u64);
    let kinds = report.rows().into_iter().map(|row| {
        let [passed, repaired, failed] = row.counts.map(number);
        Value::object([
            ("kind", row.kind.into()),
            ("passed", passed),
            ("repaired", repaired),
            ("failed", failed),
        ])
    });
    let tasks = report.results.iter().map(|result| {
        let (verdict, why) = match &result.verdict {
            TaskVerdict::Passed => ("passed", Value::Null),
            TaskVerdict::Repaired(how) => ("repaired", how.clone().into()),
            TaskVerdict::Failed(why) => ("failed", why.clone().into()),
        };
        Value::object([
            ("task", result.name.into()),
            ("kind", result.kind.into()),
            ("verdict", verdict.into()),
            ("why", why),
            ("tokens_per_second", result.speed.map_or(Value::Null, tenths)),
        ])
    });
    let texts = |texts: Vec<String>| Value::from(texts.into_iter().map(Value::from).collect::<Vec<_>>());
    Value::object([
        ("upstream", upstream.name().to_owned().into()),
        ("url", upstream.config().url.clone().into()),
        ("model", report.model.clone().into()),
        ("flavour", report.flavour.name().into()),
        ("repairs", report.repairs.into()),
        ("kinds", kinds.collect::<Vec<_>>().into()),
        ("tasks", tasks.collect::<Vec<_>>().into()),
        ("tokens_per_second", report.speed().map_or(Value::Null, tenths)),
        ("request_repairs", texts(report.request_repairs.clone())),
        ("advice", texts(report.advice())),
    ])
}

fn tenths(number: f64) -> Value<'static> {
    Value::from((number * 10.0).round() / 10.0)
}
