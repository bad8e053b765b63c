//! The judgement of answers: for each check, a function from the server's answer to a verdict. No I/O.

use std::time::Duration;

use super::fixes;
use super::verdict::{Level, ServerFacts, Verdict};
use crate::claude_code::{
    AUTO_CHECK_SECONDS, AUTO_CHECK_TOKENS, AUTO_PREFILL_MIN, AUTO_WINDOW_MIN, FIRST_REQUEST_TOKENS,
    FULL_PROMPT_TOKENS, LEAN_PROMPT_TOKENS, gets_full_prompt,
};
use crate::dialect::ServerKind;
use crate::fleet::Discovered;
use crate::openai::Repair;
use crate::probe::{Answer, Trouble};
use crate::shown::is_command;
use crate::transport::Failure;

pub(super) const MODELS: &str = "models";
pub(super) const WINDOW: &str = "window";
pub(super) const PROMPT: &str = "system prompt";
pub(super) const FULL_CACHE: &str = "full cache";
pub(super) const REASONING: &str = "reasoning";
pub(super) const HISTORY: &str = "kept reasoning";
pub(super) const SPEED: &str = "speed";
pub(super) const AUTO_MODE: &str = "auto mode";
pub(super) const CACHE: &str = "prefix cache";
pub(super) const CACHED_TOKENS: &str = "cached tokens";
pub(super) const REPAIRS: &str = "repairs";

/// The least context window that works, in tokens: Claude Code's first request has about 14,000, and an answer and one
/// file that is read come on top.
const WINDOW_LEAST: u64 = 24_000;

/// The least prompt, in tokens, whose time shows how fast the server reads: a shorter one is mostly overhead.
const PREFILL_TOKENS_MIN: u32 = 500;

/// A cached prompt takes at most this share of the time that it took at first; a smaller gain may be chance.
const CACHED_SHARE: f64 = 0.6;

/// A prompt that is read anew takes at least this share of the time that it took at first.
const UNCACHED_SHARE: f64 = 0.85;

/// The least time to the first token of a new prompt from which on the times of a repeated one mean anything. Below, they
/// are mostly the server's overhead.
const TELLING_TIME_MIN: Duration = Duration::from_millis(300);

/// The answers to a new prompt and to the same one again.
pub(super) type CacheRound = (Result<Answer, Trouble>, Result<Answer, Trouble>);

/// The rounds of a new and a repeated prompt whose times must agree.
pub(super) const CACHE_ROUNDS: usize = 3;

/// The longest text of a verdict, in characters.
const TEXT_CHARS_MAX: usize = 300;

/// The number of models that a verdict names at most.
const NAMES_MAX: usize = 5;

fn verdict(check: &'static str, level: Level, text: impl Into<String>, fix: Option<String>) -> Verdict {
    Verdict { check, level, text: in_one_line(&text.into()), fix }
}

/// A text of a server or a model, made fit for a terminal: one line of limited length without control characters.
fn in_one_line(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|c| !is_command(*c)).take(TEXT_CHARS_MAX).collect()
}

pub(super) fn fine(check: &'static str, text: impl Into<String>) -> Verdict {
    verdict(check, Level::Fine, text, None)
}

pub(super) fn doubtful(check: &'static str, text: impl Into<String>, fix: Option<String>) -> Verdict {
    verdict(check, Level::Doubtful, text, fix)
}

pub(super) fn wrong(check: &'static str, text: impl Into<String>, fix: impl Into<String>) -> Verdict {
    verdict(check, Level::Wrong, text, Some(fix.into()))
}

/// Checks that the server has models, among them those that the aliases name. `examined` is the one that the other checks
/// are about.
pub(super) fn models(found: &Discovered, named: &[String], examined: Option<&str>) -> Verdict {
    let mut names: Vec<&str> = found.models.iter().map(|model| model.id.as_str()).collect();
    if names.is_empty() {
        return wrong(MODELS, "the server lists no model", "load or pull a model at the server");
    }
    let missing: Vec<&str> = named.iter().map(String::as_str).filter(|name| !names.contains(name)).collect();
    let more = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    let mut list = names.join(", ");
    if more > 0 {
        list.push_str(&format!(" and {more} more"));
    }
    if let (true, Some(examined)) = (missing.is_empty(), examined) {
        let is_choice = found.models.len() > 1;
        let hint = if is_choice { "; --model NAME examines another one, --all all that chat" } else { "" };
        return match found.find(examined) {
            None => wrong(
                MODELS,
                format!("{examined} is to be examined, but the server has {list}"),
                "name one of the server's models with --model",
            ),
            Some(_) if is_choice => fine(MODELS, format!("{list}; examined: {examined}{hint}")),
            Some(_) => fine(MODELS, list),
        };
    }
    wrong(
        MODELS,
        format!("{} is configured, but the server has {list}", missing.join(", ")),
        "name one of the server's models in the Lua file, or start the server with --served-model-name",
    )
}

/// Tells which system prompt Claude Code sends for each name under which the model can be asked for.
pub(super) fn prompt(names: &[&str]) -> Verdict {
    let (full, lean): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| gets_full_prompt(name));
    let list = |names: &[&str]| names.iter().take(NAMES_MAX).copied().collect::<Vec<_>>().join(", ");
    let lean =
        (!lean.is_empty()).then(|| format!("lean, about {LEAN_PROMPT_TOKENS} tokens, for {}", list(&lean)));
    let full_text =
        (!full.is_empty()).then(|| format!("full, about {FULL_PROMPT_TOKENS} tokens, for {}", list(&full)));
    let text = lean.into_iter().chain(full_text).collect::<Vec<_>>().join("; ");
    let fix =
        "sparkgap claude --prompt lean, or sparkgap env --prompt lean, sends the lean one for every name";
    verdict(PROMPT, Level::Fine, text, (!full.is_empty()).then(|| fix.to_owned()))
}

/// Checks that the window is known and large enough.
pub(super) fn window(window: Option<u64>, flavour: ServerKind) -> Verdict {
    match window {
        None => doubtful(
            WINDOW,
            "the server does not report its context window, so a conversation that outgrows it cannot be compacted in time",
            Some(fixes::untold_window()),
        ),
        Some(tokens) if tokens < WINDOW_LEAST => wrong(
            WINDOW,
            format!(
                "{tokens} tokens: too small for Claude Code, whose first request alone has about {FIRST_REQUEST_TOKENS}"
            ),
            fixes::window(flavour),
        ),
        Some(tokens) if tokens < AUTO_WINDOW_MIN => doubtful(
            WINDOW,
            format!(
                "{tokens} tokens: enough for short sessions, but not for auto mode's checks of about {AUTO_CHECK_TOKENS}: `sparkgap claude` switches auto mode off (setting disableAutoMode)"
            ),
            Some(fixes::window(flavour)),
        ),
        Some(tokens) => fine(WINDOW, format!("{tokens} tokens")),
    }
}

/// True if the text has a tag that a reasoning parser would have removed.
pub(super) fn has_think_tag(text: &str) -> bool {
    text.contains("<think>") || text.contains("</think>")
}

/// Checks that reasoning arrives in its own field.
pub(super) fn reasoning(answer: &Result<Answer, Trouble>, server: &ServerFacts) -> Verdict {
    match answer {
        Err(trouble) => unanswered(REASONING, trouble),
        Ok(answer) if has_think_tag(&answer.text) => wrong(
            REASONING,
            "comes as <think> text within the answer: the reasoning parser is off, or another model's",
            fixes::reasoning_parser(server),
        ),
        Ok(answer) if answer.is_blank() => doubtful(REASONING, "not known: the answer is empty", None),
        Ok(answer) if answer.reasoning.is_empty() => {
            fine(REASONING, "neither the reasoning field nor <think> text came: the model does not think")
        }
        Ok(_) => fine(REASONING, "arrives in its own field"),
    }
}

/// The words of reasoning by which two otherwise equal conversations differ.
pub(super) const REMEMBERED_WORDS: u64 = 200;

/// Checks that the reasoning of earlier answers stays in the prompt, by the counts of two conversations, of which the
/// first has [`REMEMBERED_WORDS`] more of it. A chat template that drops it changes the prompt from the last answer on with
/// each new message of a person, which costs the prefix cache. `None`: the counts do not tell.
pub(super) fn kept_reasoning(
    long: &Result<Answer, Trouble>,
    short: &Result<Answer, Trouble>,
) -> Option<Verdict> {
    let count = |answer: &Result<Answer, Trouble>| {
        answer.as_ref().ok().map(|answer| answer.counts.prompt).filter(|tokens| *tokens > 0)
    };
    let more = count(long)?.saturating_sub(count(short)?);
    if more >= REMEMBERED_WORDS / 2 {
        return Some(fine(HISTORY, "the reasoning of earlier answers stays in the prompt"));
    }
    let text = "the chat template drops the reasoning of earlier answers, so each message of a person has the prompt read anew from the last answer on";
    let fix = "set thinking_in_text = true for this upstream in a Lua file (made for Qwen3.5), and compare the answers";
    (more < REMEMBERED_WORDS / 10).then(|| doubtful(HISTORY, text, Some(fix.into())))
}

/// Reports how fast the server is.
pub(super) fn speed(answer: &Result<Answer, Trouble>) -> Verdict {
    match answer {
        Err(trouble) => unanswered(SPEED, trouble),
        Ok(answer) => match (answer.first, answer.tokens_per_second()) {
            (None, _) => doubtful(SPEED, "the answer is empty", None),
            (Some(first), None) => fine(SPEED, format!("first token after {} ms", first.as_millis())),
            (Some(first), Some(rate)) => {
                fine(SPEED, format!("first token after {} ms, {rate:.1} tokens/s", first.as_millis()))
            }
        },
    }
}

/// Checks that auto mode's check of a tool call is answered in time. `cold` is the answer to a long prompt that the cache
/// does not know, and `is_set` the operator's own word. `None`: the time says nothing about how fast the server reads.
pub(super) fn auto_mode(cold: &Result<Answer, Trouble>, is_set: Option<bool>) -> Option<Verdict> {
    if is_set == Some(false) {
        return Some(fine(AUTO_MODE, "switched off by auto_mode = false"));
    }
    let answer = cold.as_ref().ok().filter(|answer| answer.counts.cached == 0)?;
    let prompt = u32::try_from(answer.counts.prompt).ok().filter(|tokens| *tokens >= PREFILL_TOKENS_MIN)?;
    let seconds = answer.first?.as_secs_f64().max(0.001);
    let rate = f64::from(prompt) / seconds;
    let whole = rate.round();
    let least = f64::from(u32::try_from(AUTO_PREFILL_MIN).unwrap_or(u32::MAX));
    if rate >= least {
        return Some(fine(AUTO_MODE, format!("about {whole} tokens of a new prompt are read in a second")));
    }
    let text = format!(
        "about {whole} tokens of a new prompt are read in a second: auto mode's check of a tool call has about {AUTO_CHECK_TOKENS}, and Claude Code waits {AUTO_CHECK_SECONDS} s for it"
    );
    Some(doubtful(AUTO_MODE, text, Some(fixes::no_auto_mode())))
}

/// True if further rounds may show by their times whether the cache works: the server reports no cached tokens and counts
/// none, and reading takes long enough.
pub(super) fn needs_rounds(
    first: &Result<Answer, Trouble>,
    second: &Result<Answer, Trouble>,
    hits: Option<f64>,
) -> bool {
    let reads_slowly = |answer: &Answer| answer.first.is_some_and(|time| time >= TELLING_TIME_MIN);
    match (first, second) {
        (Ok(first), Ok(second)) => second.counts.cached == 0 && hits.is_none() && reads_slowly(first),
        _ => false,
    }
}

/// Checks that a repeated prompt is served from the cache, and that the server reports it. `rounds` are the answers to a
/// new prompt and to the same one again; `hits` is the growth of the server's own counter of cached tokens in the first
/// round. Reported tokens decide, then the counter, then the times if all rounds clearly agree.
pub(super) fn cache(rounds: &[CacheRound], hits: Option<f64>, server: &ServerFacts) -> Vec<Verdict> {
    let second = match rounds.first() {
        Some((Ok(_), Ok(second))) => second,
        Some((Err(trouble), _) | (_, Err(trouble))) => return vec![unanswered(CACHE, trouble)],
        None => return Vec::new(),
    };
    let (prompt, cached) = (second.counts.prompt, second.counts.cached);
    let time_of = |answer: &Result<Answer, Trouble>| answer.as_ref().ok().and_then(|answer| answer.first);
    let times = rounds.iter().map(|(new, again)| time_of(new).zip(time_of(again)));
    let Some(times) = times.collect::<Option<Vec<_>>>() else {
        return vec![doubtful(CACHE, "the answers to a long prompt are empty", None)];
    };
    let shown: Vec<String> = times
        .iter()
        .map(|(new, again)| format!("{} ms, then {} ms", new.as_millis(), again.as_millis()))
        .collect();
    let shown = format!("first token after {}", shown.join("; "));
    if cached > 0 {
        let text = format!("{cached} of {prompt} tokens of a repeated prompt came from it ({shown})");
        return vec![fine(CACHE, text), fine(CACHED_TOKENS, "reported")];
    }
    let half = u32::try_from(prompt / 2).map_or(f64::MAX, f64::from).max(1.0);
    let share = |(new, again): &(Duration, Duration)| again.as_secs_f64() / new.as_secs_f64().max(0.001);
    let is_telling = times.len() >= CACHE_ROUNDS && times.iter().all(|(new, _)| *new >= TELLING_TIME_MIN);
    let works = match hits {
        Some(hits) => Some(hits >= half),
        None if is_telling && times.iter().all(|times| share(times) <= CACHED_SHARE) => Some(true),
        None if is_telling && times.iter().all(|times| share(times) >= UNCACHED_SHARE) => Some(false),
        None => None,
    };
    let cache = match works {
        Some(true) => fine(CACHE, format!("a repeated prompt is served from it ({shown})")),
        Some(false) => {
            let text = format!("a repeated prompt is not served from it ({shown})");
            doubtful(CACHE, text, Some(fixes::prefix_cache(server.flavour)))
        }
        None => {
            let text = format!(
                "not known: the server reports no cached tokens, and its times do not tell clearly ({shown})"
            );
            doubtful(CACHE, text, None)
        }
    };
    let text = "not reported: usage and costs in Claude Code show every prompt as new";
    vec![cache, doubtful(CACHED_TOKENS, text, fixes::cached_tokens(server.flavour))]
}

/// A counter of vLLM, over all its engines, in the text of its metrics.
pub(super) fn counter(metrics: &str, name: &str) -> Option<f64> {
    let lines = metrics.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
    });
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.reduce(|sum, value| sum + value)
}

/// Reports that vLLM has interrupted requests since its start, as its cache was full: it reads their prompts anew. `None`: it
/// has not, or does not tell.
pub(super) fn full_cache(interrupted: Option<f64>) -> Option<Verdict> {
    let count = interrupted.filter(|count| *count >= 1.0)?;
    let text = format!(
        "the cache was full {count} times since the server's start, and a running request had to wait"
    );
    let fix = "start vLLM with --kv-cache-dtype fp8, which halves the memory of each token, or with a smaller --max-num-seqs";
    Some(doubtful(FULL_CACHE, text, Some(fix.into())))
}

/// The verdict of a check that is left out, since the question of an `earlier` one had no answer.
pub(super) fn not_asked(check: &'static str, earlier: &str) -> Verdict {
    doubtful(check, format!("not asked, since '{earlier}' had no answer"), None)
}

pub(super) fn unanswered(check: &'static str, trouble: &Trouble) -> Verdict {
    let fix = match trouble {
        Trouble::Refused(404, _) => {
            "check the model's name and the URL: chat completions are at /chat/completions below it"
        }
        Trouble::Refused(401 | 403, _) => {
            "set the server's key: SPARKGAP_UPSTREAM_KEY, --upstream-key-file, or api_key in a Lua file"
        }
        Trouble::Refused(429, _) => "the server limits requests: wait, and examine it again",
        Trouble::Refused(503, _) => {
            "wait until the server has loaded its model, and examine it again; see its log"
        }
        Trouble::Refused(..) | Trouble::Broken(_) => "see the server's log",
        Trouble::Failure(Failure::Timeout(_)) => {
            "see the server's log: it hangs, is busy or slow, or still loads the model; a longer timeout = SECONDS of this upstream in a Lua file is waited for"
        }
        Trouble::Failure(_) => "check that the server still runs; see its log",
    };
    wrong(check, format!("no answer: {trouble}"), fix)
}

/// Reports the changes that requests to this server need: `learned` from refusals in this examination, `known` from the
/// model's name. `refused` holds the refusals that no change helped against, each with the changes that were tried. The
/// text has no limit, since each change matters; their number is limited.
pub(super) fn repairs(learned: &[Repair], known: &[Repair], refused: &[(Trouble, Vec<Repair>)]) -> Verdict {
    let list = |repairs: &[Repair]| {
        repairs.iter().map(|repair| format!("it {repair}")).collect::<Vec<_>>().join("; ")
    };
    let mut parts: Vec<String> = Vec::new();
    for (trouble, tried) in refused {
        let end = if matches!(trouble, Trouble::Refused(..)) { "is refused" } else { "has no answer" };
        let mut text = format!("a request as Claude Code sends it {end}: {trouble}");
        if !tried.is_empty() {
            text.push_str(&format!(" (after changes: {})", list(tried)));
        }
        if !parts.contains(&text) {
            parts.push(text);
        }
    }
    if !learned.is_empty() {
        parts.push(format!("sparkgap silently changes what the server refuses: {}", list(learned)));
    }
    if !known.is_empty() {
        parts.push(format!("by the model's name, before anything is refused: {}", list(known)));
    }
    if parts.is_empty() {
        parts.push("takes requests as Claude Code sends them".into());
    }
    let level = if refused.is_empty() { Level::Fine } else { Level::Doubtful };
    Verdict { check: REPAIRS, level, text: parts.join(". "), fix: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> ServerFacts {
        ServerFacts { flavour: ServerKind::Vllm, model: "qwen3".into() }
    }

    fn answer(text: &str, calls: &[(&str, &str)]) -> Result<Answer, Trouble> {
        let calls = calls.iter().map(|(name, arguments)| (name.to_string(), arguments.to_string())).collect();
        Ok(Answer { text: text.into(), calls, ..Answer::default() })
    }

    fn timed(first_ms: u64, prompt: u64, cached: u64) -> Result<Answer, Trouble> {
        let mut answer = Answer { first: Some(Duration::from_millis(first_ms)), ..Answer::default() };
        (answer.counts.prompt, answer.counts.cached) = (prompt, cached);
        Ok(answer)
    }

    fn shown(verdict: &Verdict) -> String {
        format!("{} {} {}", verdict.level.name(), verdict.text, verdict.fix.as_deref().unwrap_or(""))
    }

    #[test]
    fn auto_mode_needs_a_server_that_reads_fast_enough() {
        for (first_ms, prompt, cached, is_set, expected) in [
            (1000, 1500, 0, None, Some(Level::Fine)),
            (2500, 1500, 0, None, Some(Level::Fine)),
            (2501, 1500, 0, None, Some(Level::Doubtful)),
            (9000, 1500, 0, Some(true), Some(Level::Doubtful)),
            (9000, 1500, 0, Some(false), Some(Level::Fine)),
            // These times say nothing: a cached prompt, and one that is too short.
            (9000, 1500, 1000, None, None),
            (9000, 100, 0, None, None),
        ] {
            let verdict = auto_mode(&timed(first_ms, prompt, cached), is_set);
            assert_eq!(
                verdict.as_ref().map(|verdict| verdict.level),
                expected,
                "{first_ms} {prompt}: {verdict:?}"
            );
        }
        let slow = shown(&auto_mode(&timed(15_000, 1500, 0), None).unwrap());
        for words in ["about 100 tokens", "about 36000", "60 s", "auto_mode = false"] {
            assert!(slow.contains(words), "{slow}");
        }
        assert!(auto_mode(&Err(Trouble::Broken("x".into())), None).is_none());
    }

    #[test]
    fn windows_are_judged_by_what_claude_code_needs() {
        for (tokens, expected, text) in [
            (None, Level::Doubtful, "window = TOKENS"),
            (Some(8192), Level::Wrong, "--max-model-len"),
            (Some(32_768), Level::Doubtful, "auto mode"),
            (Some(131_072), Level::Fine, "131072 tokens"),
        ] {
            let verdict = window(tokens, ServerKind::Vllm);
            assert!(verdict.level == expected && shown(&verdict).contains(text), "{verdict:?}");
        }
    }

    #[test]
    fn all_repairs_are_told_and_those_of_refusals_first() {
        let learned = vec![Repair::Without("x".repeat(TEXT_CHARS_MAX)), Repair::NoImages];
        let told = repairs(&learned, &[Repair::CallIds], &[]);
        let place = |part: &str| told.text.find(part).unwrap_or_else(|| panic!("{part}: {}", told.text));
        assert!(place("takes no images") < place("call ids"), "{}", told.text);
        assert_eq!(told.level, Level::Fine);
        let trouble = Trouble::Refused(400, "no".into());
        let refused = repairs(&learned, &[], &[(trouble, vec![Repair::NoSystem])]);
        assert_eq!(refused.level, Level::Doubtful);
        for part in ["status 400: no (after changes: it takes no system message", "takes no images"] {
            assert!(refused.text.contains(part), "{}", refused.text);
        }
        assert!(repairs(&[], &[], &[]).text.contains("takes requests"));
        let both = [
            (Trouble::Refused(400, "no".into()), Vec::new()),
            (Trouble::Refused(400, "no".into()), Vec::new()),
        ];
        let same = repairs(&[], &[], &both).text;
        assert_eq!(same, "a request as Claude Code sends it is refused: status 400: no", "once");
        let none = repairs(&[], &[], &[(Trouble::Broken("the answer is empty".into()), Vec::new())]).text;
        assert_eq!(none, "a request as Claude Code sends it has no answer: the answer is empty");
    }

    #[test]
    fn misplaced_reasoning_is_wrong() {
        let thinks = Ok(Answer { reasoning: "Hm.".into(), ..Answer::default() });
        for (answer, expected, text) in [
            (thinks, Level::Fine, "own field"),
            (answer("Hm.\n</think>\n\nHello", &[]), Level::Wrong, "--reasoning-parser qwen3"),
            (answer("<think>Hm.", &[]), Level::Wrong, "--reasoning-parser qwen3"),
            (answer("Hello", &[]), Level::Fine, "does not think"),
            (answer(" ", &[]), Level::Doubtful, "not known"),
            (Err(Trouble::Failure(Failure::Timeout("before the first byte"))), Level::Wrong, "timed out"),
        ] {
            let verdict = reasoning(&answer, &server());
            assert!(verdict.level == expected && shown(&verdict).contains(text), "{verdict:?}");
        }
    }

    #[test]
    fn a_cache_shows_in_tokens_in_the_counter_or_clearly_in_the_times() {
        let levels = |rounds: Vec<CacheRound>, hits| {
            let verdicts = cache(&rounds, hits, &server());
            verdicts.iter().map(shown).collect::<Vec<_>>()
        };
        let round = |new, again| (timed(new, 1500, 0), timed(again, 1500, 0));
        let begins = |told: &[String], beginnings: &[&str]| {
            assert_eq!(told.len(), beginnings.len(), "{told:?}");
            let all = told.iter().zip(beginnings).all(|(told, beginning)| told.starts_with(beginning));
            assert!(all, "{told:?}");
        };
        begins(
            &levels(vec![(timed(900, 1500, 0), timed(100, 1500, 1408))], None),
            &["ok 1408 of", "ok reported"],
        );
        begins(
            &levels(vec![round(900, 100), round(800, 100), round(900, 90)], None),
            &["ok a repeated", "warn not"],
        );
        begins(&levels(vec![round(900, 800)], Some(1408.0)), &["ok a repeated", "warn not"]);
        begins(
            &levels(vec![round(900, 880), round(900, 900), round(900, 950)], None),
            &["warn a repeated prompt is not", "warn not"],
        );
        begins(&levels(vec![round(900, 100)], Some(0.0)), &["warn a repeated prompt is not", "warn not"]);
        // Too few rounds, rounds that do not agree, and a server that reads too fast to tell.
        for rounds in [
            vec![round(900, 100)],
            vec![round(900, 100), round(900, 100), round(900, 880)],
            vec![round(30, 1), round(25, 1), round(25, 1)],
        ] {
            let told = levels(rounds, None);
            begins(&told, &["warn not known", "warn not reported"]);
            assert!(!told[0].contains("--no-enable-prefix-caching"), "no guess: {told:?}");
        }
        begins(&levels(vec![(timed(900, 1500, 0), answer("", &[]))], None), &["warn the answers"]);
        begins(
            &levels(vec![(Err(Trouble::Refused(400, "x".into())), timed(1, 1, 1))], None),
            &["fail no answer"],
        );
        assert!(needs_rounds(&timed(900, 1500, 0), &timed(100, 1500, 0), None));
        for (new, again, hits) in [
            (timed(900, 1500, 0), timed(100, 1500, 1408), None),
            (timed(900, 1500, 0), timed(100, 1500, 0), Some(0.0)),
            (timed(20, 1500, 0), timed(1, 1500, 0), None),
            (timed(900, 1500, 0), Err(Trouble::Broken("x".into())), None),
        ] {
            assert!(!needs_rounds(&new, &again, hits));
        }
    }

    #[test]
    fn counters_are_summed_over_the_engines() {
        let metrics = "# HELP vllm:prefix_cache_hits_total x\nvllm:prefix_cache_queries_total{e=\"0\"} 9.0\n\
            vllm:prefix_cache_hits_total{engine=\"0\"} 128.0\nvllm:prefix_cache_hits_total{engine=\"1\"} 2.0\n";
        assert_eq!(counter(metrics, "vllm:prefix_cache_hits_total"), Some(130.0));
        assert_eq!(counter("llamacpp:x 1", "vllm:prefix_cache_hits_total"), None);
        assert!(full_cache(Some(3.0)).is_some_and(|verdict| shown(&verdict).contains("fp8")));
        assert_eq!((full_cache(Some(0.0)), full_cache(None)), (None, None));
    }

    #[test]
    fn each_name_has_its_prompt() {
        let told = prompt(&["qwen3", "claude-sonnet-4-5"]);
        for part in [
            "lean, about 1700 tokens, for qwen3",
            "full, about 7000 tokens, for claude-sonnet-4-5",
            "--prompt",
        ] {
            assert!(shown(&told).contains(part), "{told:?}");
        }
        let lean = prompt(&["qwen3"]);
        assert!(lean.fix.is_none() && !lean.text.contains("full"), "{lean:?}");
    }

    #[test]
    fn missing_models_are_named() {
        let none = Discovered::default();
        assert!(shown(&models(&none, &[], None)).contains("lists no model"));
    }

    #[test]
    fn the_speed_is_reported() {
        assert!(shown(&speed(&timed(250, 10, 0))).contains("250 ms"));
        assert_eq!(speed(&answer("", &[])).level, Level::Doubtful);
    }

    #[test]
    fn dropped_reasoning_shows_in_the_counts() {
        let told = |long, short| {
            kept_reasoning(&timed(1, long, 0), &timed(1, short, 0)).map(|verdict| shown(&verdict))
        };
        assert!(told(250, 45).unwrap().starts_with("ok "));
        assert!(told(45, 45).unwrap().contains("thinking_in_text = true"));
        assert_eq!((told(100, 45), told(0, 0), told(250, 0)), (None, None, None));
        assert_eq!(kept_reasoning(&Err(Trouble::Broken("x".into())), &timed(1, 45, 0)), None);
    }
}
