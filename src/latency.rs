//! Measures the time to the first token and the tokens a second, through sparkgap and straight to its upstream.
//!
//! Both ways carry the same question: straight to the upstream it has the very body that sparkgap would send. The ways
//! take turns within each round, so that other work of the machine slows both alike.

use std::time::Duration;

use crate::fleet::Gateway;
use crate::ids;
use crate::json::Value;
use crate::probe::{self, Answer, Format};
use crate::proxy::{Preview, preview};
use crate::shown::ShownText;
use crate::transport::{Endpoint, Path, nobody};

/// The most time from the head of an answer to its end. A server with many requests may be slow.
const ANSWER_TIME: Duration = Duration::from_secs(1800);

/// Tokens of a window that are left free beside the prompt and its answer: for the chat template, and for a tokenizer
/// that makes more tokens of the words.
const SPARE_TOKENS: u64 = 256;

/// Words that every tokenizer makes one token of.
const WORDS: [&str; 12] = [
    "river", "stone", "green", "house", "light", "music", "paper", "north", "water", "table", "seven",
    "bread",
];

/// The way a question travels.
#[derive(Debug)]
pub enum Way<'a> {
    /// To a server of the Messages API, with this model name.
    Messages(&'a Endpoint, &'a str),
    /// Translated as this gateway would, then straight to the upstream that it would choose.
    Straight(&'a Gateway, &'a str),
}

/// A target of questions: one line of the table for each size of prompt.
#[derive(Debug)]
pub struct BenchTarget<'a> {
    /// Its name in the table.
    pub label: String,
    /// The context window in tokens, if it is known.
    pub window: Option<u64>,
    /// The ways to it, each with its column's name.
    pub ways: Vec<(&'static str, Way<'a>)>,
}

/// The amount of questions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchPlan {
    /// The number of times that each question is asked.
    pub rounds: u64,
    /// The sizes of the prompts, in tokens.
    pub sizes: Vec<u64>,
    /// The token limit of each answer.
    pub answer_tokens: u64,
}

impl Default for BenchPlan {
    fn default() -> Self {
        // An answer of 64 tokens is long enough for a pace, and soon over.
        BenchPlan { rounds: 5, sizes: vec![100, 1000, 4000], answer_tokens: 64 }
    }
}

/// The times of one way.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// The column's name.
    pub way: &'static str,
    /// Milliseconds to the first token: the least, the median and the 90th percentile.
    pub first_ms: [f64; 3],
    /// Tokens a second, the median; `None` if the answers were too short to measure it.
    pub tokens_per_second: Option<f64>,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The target's label.
    pub label: String,
    /// The prompt's tokens, as the server counted them.
    pub prompt_tokens: u64,
    /// True if the prompt was asked before; false if it differed from every other prompt from its beginning on.
    pub is_warm: bool,
    /// The times of each way.
    pub times: Vec<Times>,
}

/// Asks all questions. `on_step` is called with a text on each step that begins.
///
/// # Errors
/// A question that was not answered; the text says which, and why.
pub fn run(
    targets: &[BenchTarget<'_>],
    plan: &BenchPlan,
    on_step: &mut dyn FnMut(&str),
) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    for target in targets {
        let fits = |size: &&u64| {
            target.window.is_none_or(|window| **size + plan.answer_tokens + SPARE_TOKENS <= window)
        };
        for size in plan.sizes.iter().filter(fits) {
            for is_warm in [false, true] {
                let what = if is_warm { "warm" } else { "cold" };
                on_step(&format!("{}, {size} tokens, {what}", target.label));
                rows.push(measure_row(target, plan, *size, is_warm)?);
            }
        }
    }
    Ok(rows)
}

/// Asks the questions of one line.
fn measure_row(target: &BenchTarget<'_>, plan: &BenchPlan, size: u64, is_warm: bool) -> Result<Row, String> {
    let repeated = ids::request_id();
    let seed = || if is_warm { repeated.clone() } else { ids::request_id() };
    // The first answer of each way is not measured: it fills the cache, or makes the connections.
    for (_, way) in &target.ways {
        way.ask(&seed(), size, plan.answer_tokens)?;
    }
    let mut answers: Vec<Vec<Answer>> = target.ways.iter().map(|_| Vec::new()).collect();
    for round in 0..plan.rounds {
        let mut turns: Vec<_> = target.ways.iter().zip(&mut answers).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for ((_, way), answers) in turns {
            answers.push(way.ask(&seed(), size, plan.answer_tokens)?);
        }
    }
    let prompts = answers.iter().flatten().map(|answer| answer.counts.prompt);
    let times = target.ways.iter().zip(&answers).map(|((name, _), answers)| times(name, answers));
    Ok(Row {
        label: target.label.clone(),
        prompt_tokens: prompts.max().unwrap_or(0),
        is_warm,
        times: times.collect(),
    })
}

fn times(way: &'static str, answers: &[Answer]) -> Times {
    let first: Vec<f64> =
        answers.iter().filter_map(|answer| answer.first).map(|time| time.as_secs_f64() * 1000.0).collect();
    let rates: Vec<f64> = answers.iter().filter_map(Answer::tokens_per_second).collect();
    let share = |part: usize| share(&first, part).unwrap_or(0.0);
    Times { way, first_ms: [share(0), share(50), share(90)], tokens_per_second: self::share(&rates, 50) }
}

/// The percentile by nearest rank: the least value that `percent` percent of the values do not exceed.
fn share(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

impl Way<'_> {
    fn ask(&self, seed: &str, size: u64, answer_tokens: u64) -> Result<Answer, String> {
        let answer = match self {
            Way::Messages(server, model) => {
                let body = question(model, seed, size, answer_tokens);
                let asked = probe::ask(
                    server,
                    Path::Root("/v1/messages"),
                    Format::Messages,
                    &body,
                    (ANSWER_TIME, |_| false),
                    &nobody(),
                );
                asked.map_err(|trouble| {
                    format!("{} did not answer for {}: {trouble}", server.name(), ShownText::new(model))
                })?
            }
            Way::Straight(gateway, model) => {
                ask_straight(gateway, &question(model, seed, size, answer_tokens))?
            }
        };
        if answer.first.is_none() {
            return Err("an answer was empty, so it has no first token".to_string());
        }
        Ok(answer)
    }
}

/// Asks the upstream with the body that sparkgap would send. The answer is not translated back.
fn ask_straight(gateway: &Gateway, question: &Value<'_>) -> Result<Answer, String> {
    let Preview::Sent { upstream, body, .. } = preview(gateway, question.to_json().as_bytes(), &[]) else {
        return Err(
            "the hooks answer or refuse the question: no upstream is asked, so there is nothing to compare"
                .to_string(),
        );
    };
    let Some(served) = gateway.upstream(&upstream) else {
        return Err(format!("there is no upstream '{upstream}'"));
    };
    probe::ask(
        served.upstream().endpoint(),
        Path::Api("/chat/completions"),
        Format::Chat,
        &body,
        (ANSWER_TIME, |_| false),
        &nobody(),
    )
    .map_err(|trouble| format!("upstream '{upstream}' did not answer: {trouble}"))
}

/// A prompt of about `size` tokens that begins with `seed`. A prefix cache has it only if it saw the same seed before.
fn question(model: &str, seed: &str, size: u64, answer_tokens: u64) -> Value<'static> {
    // Tokens of the chat template, and of the words around the list.
    const FRAME_TOKENS: u64 = 70;
    let mut text = format!("{seed}: here are words.");
    let count = usize::try_from(size.saturating_sub(FRAME_TOKENS)).unwrap_or(usize::MAX);
    for word in WORDS.iter().cycle().take(count) {
        text.push(' ');
        text.push_str(word);
    }
    text.push_str(". Forget them; count from 1 to 100, in words. HELLO");
    let message = Value::object([("role", "user".into()), ("content", text.into())]);
    Value::object([
        ("model", model.to_string().into()),
        ("max_tokens", answer_tokens.into()),
        ("stream", true.into()),
        ("messages", vec![message].into()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_by_nearest_rank() {
        let values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(share(&values, 0), Some(1.0));
        assert_eq!(share(&values, 50), Some(3.0));
        assert_eq!(share(&values, 90), Some(5.0));
        assert_eq!(share(&[7.0], 90), Some(7.0));
        assert_eq!(share(&[], 50), None);
    }

    #[test]
    fn a_prompt_begins_with_its_seed_and_grows_with_its_size() {
        let text = |size| {
            let question = question("m", "req_1", size, 64);
            question.get("messages").unwrap().as_array().unwrap()[0]
                .get("content")
                .unwrap()
                .as_str()
                .unwrap()
                .to_string()
        };
        assert!(text(100).starts_with("req_1: "));
        assert_eq!(text(1000).split(' ').count() - text(100).split(' ').count(), 900);
    }
}
