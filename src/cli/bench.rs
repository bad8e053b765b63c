//! `bench`: the latency table.

use std::fmt::Write as _;

use super::arguments::Bench;
use super::output::{Failed, print, print_json};
use super::progress::ProgressLine;
use super::remote::{address, key, named, server};
use crate::app::Sources;
use crate::config;
use crate::fleet::{Gateway, Upstream};
use crate::json::Value;
use crate::latency::{self, BenchPlan, BenchTarget, Row, Times, Way};
use crate::shown::ShownText;
use crate::transport::{self, Endpoint, nobody};

/// The titles of the table's columns: sparkgap, and the upstream itself.
const THROUGH: &str = "sparkgap";
const STRAIGHT: &str = "direct";

/// The address of the real Anthropic API.
pub(super) const ANTHROPIC_URL: &str = "https://api.anthropic.com";

/// `sparkgap bench`.
pub(super) fn run(options: &Bench) -> Result<(), Failed> {
    let plan = plan(options)?;
    let config = server(&address(options.base_url.as_deref()), key(None).as_deref());
    let proxy = Upstream::new(config, &transport::CallLimits::default())?;
    let gateway = gateway(options)?;
    let anthropic = anthropic(options)?;
    let models = models(options, &proxy, gateway.as_ref())?;
    let alone =
        gateway.as_ref().map(|gateway| boxes_alone(options, gateway)).transpose()?.unwrap_or_default();
    let mut targets: Vec<BenchTarget<'_>> = Vec::new();
    for (model, window) in &models {
        let members = gateway.as_ref().map(|gateway| members(gateway, model)).unwrap_or_default();
        if members.len() > 1 {
            // sparkgap chooses a box for each question, so the pool has a line, and each of its boxes has one.
            let ways = vec![(THROUGH, Way::Messages(proxy.endpoint(), model))];
            targets.push(BenchTarget { label: model.clone(), window: *window, ways });
            for (name, one) in alone.iter().filter(|(name, _)| members.contains(name)) {
                let _ = one.refresh(model, &[], &nobody());
                let ways = vec![(STRAIGHT, Way::Straight(one, model))];
                targets.push(BenchTarget { label: format!("{model} on {name}"), window: *window, ways });
            }
            continue;
        }
        let mut ways = vec![(THROUGH, Way::Messages(proxy.endpoint(), model))];
        ways.extend(gateway.as_ref().map(|gateway| (STRAIGHT, Way::Straight(gateway, model))));
        targets.push(BenchTarget { label: model.clone(), window: *window, ways });
    }
    if let (Some(server), Some(model)) = (&anthropic, &options.anthropic) {
        let ways = vec![(STRAIGHT, Way::Messages(server, model))];
        targets.push(BenchTarget { label: format!("{model} (Anthropic)"), window: None, ways });
    }
    let progress = ProgressLine::new();
    let rows = latency::run(&targets, &plan, &mut |what| progress.say(&format!("measuring {what}")));
    progress.clear();
    let rows = rows?;
    match options.json {
        true => print_json(&as_json(&rows, &plan)),
        false => print(&as_table(&rows, &plan)),
    }
    Ok(())
}

fn plan(options: &Bench) -> Result<BenchPlan, Failed> {
    let mut plan = BenchPlan::default();
    if let Some(sizes) = &options.sizes {
        let numbers = sizes.split(',').map(|size| size.trim().parse::<u64>()).collect::<Result<Vec<_>, _>>();
        plan.sizes = numbers.map_err(|_| format!("--sizes {sizes}: expected numbers, as in 100,1000"))?;
    }
    plan.rounds = options.rounds.unwrap_or(plan.rounds);
    if plan.rounds == 0 {
        return Err("--rounds 0: expected at least 1".into());
    }
    Ok(plan)
}

/// The upstreams of the running sparkgap, if the options name them: only then they can be asked directly.
fn gateway(options: &Bench) -> Result<Option<Gateway>, Failed> {
    if options.upstream.is_empty() && options.hooks.is_empty() {
        return Ok(None);
    }
    Gateway::new(sources(options).load()?, &transport::CallLimits::default()).map(Some)
}

fn sources(options: &Bench) -> Sources {
    Sources {
        upstreams: options.upstream.clone(),
        upstream_key_file: options.upstream_key_file.clone(),
        hooks: options.hooks.clone(),
        ..Sources::default()
    }
}

/// The names of the members of the pool that serves a model.
fn members(gateway: &Gateway, model: &str) -> Vec<String> {
    let destinations = gateway.destinations(model, &[], None).unwrap_or_default();
    let members = destinations.iter().filter(|destination| destination.rank == 0);
    members.map(|destination| destination.served.name().to_string()).collect()
}

/// For each of several upstreams the same configuration without the other ones, so that it can be asked alone.
fn boxes_alone(options: &Bench, gateway: &Gateway) -> Result<Vec<(String, Gateway)>, Failed> {
    let names = gateway.upstreams().iter().map(|served| served.name().to_string());
    if gateway.upstreams().len() < 2 {
        return Ok(Vec::new());
    }
    let alone = |name: String| {
        let mut loaded = sources(options).load()?;
        let config = &mut loaded.config;
        config.upstreams.retain(|upstream| upstream.name == name);
        config.aliases.retain_mut(|alias| {
            let is_open = alias.members.is_empty();
            alias.members.retain(|member| member.upstream == name);
            alias.backup.clear();
            is_open || !alias.members.is_empty()
        });
        Ok((name, Gateway::new(loaded, &transport::CallLimits::default())?))
    };
    names.map(alone).collect()
}

/// The real API, if the options ask for it explicitly.
fn anthropic(options: &Bench) -> Result<Option<Endpoint>, Failed> {
    if options.anthropic.is_none() {
        return Ok(None);
    }
    let key = named("ANTHROPIC_API_KEY")
        .ok_or("--anthropic needs a key in the environment variable ANTHROPIC_API_KEY")?;
    let config = server(options.anthropic_url.as_deref().unwrap_or(ANTHROPIC_URL), None);
    let server = Endpoint::new(&config, &transport::CallLimits::default())?;
    Ok(Some(server.with_header("x-api-key", &key)?.with_header("anthropic-version", "2023-06-01")?))
}

/// The models to ask for, with their windows: those of `--model`, otherwise one name for each model that is served.
fn models(
    options: &Bench,
    proxy: &Upstream,
    gateway: Option<&Gateway>,
) -> Result<Vec<(String, Option<u64>)>, Failed> {
    let url = &proxy.config().url;
    let config = config::UpstreamConfig { url: format!("{url}/v1"), ..proxy.config().clone() };
    let listed = Upstream::new(config, &transport::CallLimits::default())?;
    let found = listed.discover().map_err(|failure| {
        format!("no sparkgap answers at {url} ({failure}); start one: sparkgap serve --upstream URL")
    })?;
    let mut seen = Vec::new();
    let mut models = Vec::new();
    // Each model of an upstream is listed under a second name too, for Claude Code's menu.
    let is_listed = |name: &str| found.find(name).is_some();
    let is_second = |name: &str| name.strip_prefix("anthropic/").is_some_and(is_listed);
    let names = found.models.iter().map(|model| model.id.clone()).filter(|name| !is_second(name));
    let names: Vec<String> = if options.model.is_empty() { names.collect() } else { options.model.clone() };
    for name in names {
        let mut window = found.window(&name);
        if let Some(gateway) = gateway {
            let _ = gateway.refresh(&name, &[], &nobody());
            let resolved = gateway.resolve(&name);
            let resolved = resolved.map_err(|error| format!("{name}: {}", error.message))?;
            window = resolved.window().or(window);
            // Several names for one model count once, unless `--model` asks for them.
            let place = (resolved.served.name().to_string(), resolved.model);
            if options.model.is_empty() && seen.contains(&place) {
                continue;
            }
            seen.push(place);
        }
        models.push((name, window));
    }
    Ok(models)
}

fn as_table(rows: &[Row], plan: &BenchPlan) -> String {
    let mut text = format!(
        "sparkgap {}, {} rounds, answers of {} tokens; first token in ms: min / median / p90\n\n",
        env!("CARGO_PKG_VERSION"),
        plan.rounds,
        plan.answer_tokens
    );
    text.push_str(
        "| model | prompt | cache | through sparkgap | direct | difference | tokens/s | direct |\n",
    );
    text.push_str("|---|--:|---|--:|--:|--:|--:|--:|\n");
    for row in rows {
        let (through, straight) = (of(row, THROUGH), of(row, STRAIGHT));
        let first = |times: Option<&Times>| {
            times.map_or("-".to_string(), |times| times.first_ms.map(|ms| format!("{ms:.1}")).join(" / "))
        };
        let rate = |times: Option<&Times>| {
            let rate = times.and_then(|times| times.tokens_per_second);
            rate.map_or("-".to_string(), |rate| format!("{rate:.1}"))
        };
        let difference = through.zip(straight).map_or("-".to_string(), |(through, straight)| {
            let [[_, through, _], [_, straight, _]] = [through.first_ms, straight.first_ms];
            format!("{:+.1}", through - straight)
        });
        let cache = if row.is_warm { "warm" } else { "cold" };
        let _ = writeln!(
            text,
            "| {} | {} | {cache} | {} | {} | {difference} | {} | {} |",
            ShownText::new(&row.label),
            row.prompt_tokens,
            first(through),
            first(straight),
            rate(through),
            rate(straight)
        );
    }
    text
}

fn of<'r>(row: &'r Row, way: &str) -> Option<&'r Times> {
    row.times.iter().find(|times| times.way == way)
}

fn as_json(rows: &[Row], plan: &BenchPlan) -> Value<'static> {
    let row = |row: &Row| {
        let times = row.times.iter().map(|times| {
            let [min, median, p90] = times.first_ms;
            Value::object([
                ("way", times.way.into()),
                (
                    "first_ms",
                    Value::object([("min", min.into()), ("median", median.into()), ("p90", p90.into())]),
                ),
                ("tokens_per_second", times.tokens_per_second.map_or(Value::Null, Value::from)),
            ])
        });
        Value::object([
            ("model", row.label.clone().into()),
            ("prompt_tokens", row.prompt_tokens.into()),
            ("cache", if row.is_warm { "warm" } else { "cold" }.into()),
            ("times", times.collect::<Vec<_>>().into()),
        ])
    };
    Value::object([
        ("rounds", plan.rounds.into()),
        ("answer_tokens", plan.answer_tokens.into()),
        ("rows", rows.iter().map(row).collect::<Vec<_>>().into()),
    ])
}
