//! `doctor`: shows the faults of the upstreams' set-up, and their fixes.

use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use super::arguments::Doctor;
use super::output::{Failed, note, print, print_failure, print_json};
use super::progress::ModelWait;
use crate::app::{Search, Sources, found_upstreams};
use crate::config::{self, Config, SearchConfig};
use crate::doctor::{Level, Patient, Step, Verdict, examine};
use crate::fleet::Upstream;
use crate::hooks::Loaded;
use crate::json::Value;
use crate::route::Alias;
use crate::search::try_searxng;
use crate::shown::ShownText;
use crate::transport::{self, CallLimits, Wait};

/// The most models that `--all` examines at one server: each takes some seconds, or a minute where it must be loaded.
const EXAMINED_MAX: usize = 64;

/// The most models in a row of one server that leave a question without an answer. The server hangs then, and each further one
/// would take minutes.
const UNANSWERED_MAX: usize = 2;

/// The longest waits for an answer: until its first byte, and between two bytes. They are shorter than those of requests, which
/// may wait behind others and have long prompts. A `timeout` of the upstream replaces both.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(120);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// `sparkgap doctor`. Fails if anything is wrong.
pub(super) fn run(options: &Doctor) -> Result<(), Failed> {
    let Loaded { config, hooks } = load(options).inspect_err(|failed| {
        if options.json {
            print_failure(failed);
        }
    })?;
    let search = config.search.as_ref().map(|engine| (engine, search_verdict(engine)));
    let line = Rc::new(ModelWait::new());
    let wait: Rc<dyn Wait> = line.clone();
    let limits = CallLimits {
        first_byte_timeout: FIRST_BYTE_TIMEOUT,
        idle_timeout: IDLE_TIMEOUT,
        ..CallLimits::default()
    };
    let mut patients = Vec::new();
    for upstream in &config.upstreams {
        let upstream = Upstream::new(upstream.clone(), &limits)?;
        let named = named(&config, upstream.name());
        let aliases = aliases_to(&config, upstream.name());
        let mut models = wanted(&upstream, &options.model, options.all).into_iter();
        let mut unanswered = 0;
        while let Some(model) = models.next() {
            let patient = Patient {
                upstream: &upstream,
                hooks: &hooks,
                named: &named,
                aliases: &aliases,
                model: model.as_deref(),
                wait: &wait,
            };
            let (verdicts, has_given_up) = examined(patient, &line, options.json);
            patients.push((upstream.clone(), model, verdicts));
            unanswered = if has_given_up { unanswered + 1 } else { 0 };
            if unanswered >= UNANSWERED_MAX && models.len() > 0 {
                note(&format!(
                    "sparkgap: {} more models of {} are not examined, since {unanswered} in a row had no answer\n",
                    models.len(),
                    ShownText::new(upstream.name())
                ));
                break;
            }
        }
    }
    if options.json {
        print_json(&as_json(&patients, search.as_ref()));
    }
    if let Some((engine, verdict)) = search.as_ref().filter(|_| !options.json) {
        print(&format!("search {}\n{}", engine.searxng, as_text(verdict)));
    }
    let wrong =
        |verdicts: &[Verdict]| verdicts.iter().filter(|verdict| verdict.level == Level::Wrong).count();
    let of_search = search.as_ref().map_or(0, |(_, verdict)| wrong(std::slice::from_ref(verdict)));
    match patients.iter().map(|(_, _, verdicts)| wrong(verdicts)).sum::<usize>() + of_search {
        0 => Ok(()),
        1 => Err("1 check failed".into()),
        count => Err(format!("{count} checks failed")),
    }
}

/// The configuration, with its upstreams or the one that was found.
fn load(options: &Doctor) -> Result<Loaded, Failed> {
    if let Some(file) = &options.ca_file {
        transport::trust(file).map_err(|why| format!("--ca-file: {why}"))?;
    }
    let sources = Sources {
        upstreams: options.upstream.clone(),
        upstream_key_file: options.upstream_key_file.clone(),
        hooks: options.hooks.clone(),
        unsafe_hooks: options.unsafe_hooks,
        litellm: None,
    };
    if sources.name_upstreams() { sources.load() } else { sources.load_with(found(&sources)?) }
}

/// The verdict on the search engine of web searches.
fn search_verdict(engine: &SearchConfig) -> Verdict {
    let (level, text) = match try_searxng(engine) {
        Ok(0) => (Level::Doubtful, "it answers, but without results: its engines may be blocked".to_owned()),
        Ok(_) => (Level::Fine, "it answers in JSON with results".to_owned()),
        Err(why) => (Level::Wrong, why),
    };
    Verdict { check: "web search", level, text, fix: None }
}

/// A server on a local port, for a command line that names no server. A note on the key goes to stderr, since it is not
/// a part of the result.
fn found(sources: &Sources) -> Result<Vec<config::UpstreamConfig>, Failed> {
    let search = Search::run(sources.upstream_key_file.as_deref())?;
    let on_the_key = search.on_the_key();
    let Some(url) = search.url else {
        return Err(format!(
            "no model server on the usual local ports: name one with --upstream URL{on_the_key}"
        ));
    };
    if !on_the_key.is_empty() {
        note(&format!("sparkgap: took the server found at {url}{on_the_key}\n"));
    }
    found_upstreams(&[url])
}

/// The models that the configuration asks this upstream for.
fn named(config: &Config, upstream: &str) -> Vec<String> {
    let own = config.upstreams.iter().filter(|own| own.name == upstream).filter_map(|own| own.model.clone());
    let mut named: Vec<String> = Vec::new();
    let asked = |alias: &Alias| {
        let is_open = alias.members.is_empty() && config.upstream_of(alias) == Some(upstream);
        let open = is_open.then(|| alias.model.clone()).flatten();
        let members = alias.members.iter().chain(&alias.backup).filter(|member| member.upstream == upstream);
        let models = members.filter_map(|member| config.model_of(alias, member).map(str::to_owned));
        open.into_iter().chain(models).collect::<Vec<_>>()
    };
    // A `*` stands for a part of the name that a client asks for, which is not known here.
    let models = config.aliases.iter().flat_map(asked).filter(|model| !model.contains('*'));
    for model in own.chain(models) {
        if !named.contains(&model) {
            named.push(model);
        }
    }
    named
}

/// The names of the aliases that lead to this upstream, without patterns.
fn aliases_to(config: &Config, upstream: &str) -> Vec<String> {
    let leads_there = |alias: &&Alias| {
        let is_open = alias.members.is_empty() && config.upstream_of(alias) == Some(upstream);
        is_open || alias.members.iter().chain(&alias.backup).any(|member| member.upstream == upstream)
    };
    let names = config.aliases.iter().filter(leads_there).map(|alias| alias.pattern.clone());
    names.filter(|name| !name.contains('*')).collect()
}

/// The models of an upstream that are examined, one after the other; `None` stands for the one that requests get. A server
/// that cannot be asked for all of them has that one examination, which tells why.
fn wanted(upstream: &Upstream, named: &[String], all: bool) -> Vec<Option<String>> {
    if !named.is_empty() {
        return named.iter().cloned().map(Some).collect();
    }
    let found = if all { upstream.discover().ok() } else { None };
    let all = found.iter().flat_map(|found| found.candidates().map(|model| Some(model.id.clone())));
    let all: Vec<Option<String>> = all.take(EXAMINED_MAX).collect();
    if all.is_empty() { vec![None] } else { all }
}

/// Examines one upstream, and meanwhile shows a progress line.
fn examined(patient: Patient<'_>, line: &ModelWait, json: bool) -> (Vec<Verdict>, bool) {
    let upstream = patient.upstream;
    if !json {
        let model = patient.model.map_or(String::new(), |model| format!(" {}", ShownText::new(model)));
        print(&format!("{} {}{model}\n", ShownText::new(upstream.name()), upstream.config().url));
    }
    examine(patient, &mut |step| match step {
        Step::Begin(check) => line.begin(format!("checking {}: {check}", upstream.name())),
        Step::End(verdict) => {
            line.clear();
            if !json {
                print(&as_text(verdict));
            }
        }
    })
}

fn as_text(verdict: &Verdict) -> String {
    let said = ShownText::whole(&verdict.text);
    let mut text = format!("  {:4}  {:16}  {said}\n", verdict.level.name(), verdict.check);
    if let Some(fix) = verdict.fix.as_deref().map(ShownText::whole) {
        let _ = writeln!(text, "        {:16}  fix: {fix}", "");
    }
    text
}

fn as_json<'p>(
    patients: &'p [(Upstream, Option<String>, Vec<Verdict>)],
    search: Option<&'p (&SearchConfig, Verdict)>,
) -> Value<'p> {
    let verdict = |verdict: &Verdict| {
        Value::object([
            ("check", verdict.check.into()),
            ("level", verdict.level.name().into()),
            ("text", verdict.text.clone().into()),
            ("fix", verdict.fix.clone().map_or(Value::Null, Value::from)),
        ])
    };
    let patient = |(upstream, model, verdicts): &(Upstream, Option<String>, Vec<Verdict>)| {
        Value::object([
            ("upstream", upstream.name().to_string().into()),
            ("url", upstream.config().url.clone().into()),
            ("model", model.clone().map_or(Value::Null, Value::from)),
            ("checks", verdicts.iter().map(verdict).collect::<Vec<_>>().into()),
        ])
    };
    let engine = search.map(|(engine, found)| {
        Value::object([("search", engine.searxng.clone().into()), ("checks", vec![verdict(found)].into())])
    });
    patients.iter().map(patient).chain(engine).collect::<Vec<_>>().into()
}
