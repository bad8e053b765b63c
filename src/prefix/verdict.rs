//! Whether an upstream read less from its cache than the turn before had left there, and why.

use std::fmt;

use super::chain::{ChangePlace, Comparison};

/// The least number of lost tokens that is a miss; Claude Code has the same rule.
const LOST_MIN: u64 = 2000;

/// The part of the prefix, in percent, that is kept where nothing is lost: servers cache whole blocks.
const KEPT_MIN: u64 = 95;

/// A second cause is told in the place of a change if less than this part of the tokens before the change, in percent, was kept.
const EXPLAINED_MIN: u64 = 50;

/// The facts that a turn's answer gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The tokens of the prompt, by the upstream's count.
    pub prompt: u64,
    /// The tokens of the prompt that were cached; `None` if the upstream never says.
    pub cached: Option<u64>,
    /// The hash of the upstream's name.
    pub upstream: u64,
    /// The number of the server that ran there; a restart raises it.
    pub generation: u64,
}

/// The cause of a lost prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The tools are others.
    Tools,
    /// The system prompt is another one.
    System,
    /// A message that was sent before is another one now, or is missing.
    Messages,
    /// The request goes to another model.
    Model,
    /// Its effort is another one.
    Effort,
    /// Thinking, or another argument of the template, is another one.
    Thinking,
    /// A hook changed what the client had left as it was.
    Hook,
    /// Another upstream got the request.
    BoxMoved,
    /// The upstream was started anew.
    BoxRestarted,
    /// Nothing changed: the upstream has read the prefix and dropped it.
    Evicted,
    /// The upstream does not say how much was cached.
    NotReported,
}

impl Cause {
    /// All causes, in the order of their discriminants.
    pub const ALL: [Cause; 11] = [
        Cause::Tools,
        Cause::System,
        Cause::Messages,
        Cause::Model,
        Cause::Effort,
        Cause::Thinking,
        Cause::Hook,
        Cause::BoxMoved,
        Cause::BoxRestarted,
        Cause::Evicted,
        Cause::NotReported,
    ];

    /// Its name in the log and the metrics; Claude Code's, where it has one.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Tools => "tools_changed",
            Cause::System => "system_prompt_changed",
            Cause::Messages => "messages_rewritten",
            Cause::Model => "model_changed",
            Cause::Effort => "effort_changed",
            Cause::Thinking => "thinking_mode_changed",
            Cause::Hook => "hook",
            Cause::BoxMoved => "box_moved",
            Cause::BoxRestarted => "box_restarted",
            Cause::Evicted => "evicted",
            Cause::NotReported => "not_reported",
        }
    }
}

/// How much of the prefix a turn found in its upstream's cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixVerdict {
    /// The cached tokens; `None` if the upstream does not say.
    pub kept: Option<u64>,
    /// The tokens of the prefix that were read again; `None` if the upstream does not say.
    pub lost: Option<u64>,
    /// The cause, if so much was lost that it is a miss.
    pub cause: Option<Cause>,
    /// The first place at which the body did not continue the earlier one, if a change is the cause.
    pub at: Option<ChangePlace>,
}

impl PrefixVerdict {
    /// The lost tokens and their cause, if they are a miss.
    pub fn miss(&self) -> Option<(u64, Cause)> {
        Some((self.lost?, self.cause?))
    }
}

/// A number with a comma between each three digits.
#[derive(Clone, Copy, Debug)]
pub struct Grouped(pub u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= 1000 {
            write!(f, "{},{:03}", Grouped(self.0 / 1000), self.0 % 1000)
        } else {
            write!(f, "{}", self.0)
        }
    }
}

/// Judges a turn: `found` compares its body with that of the turn before, `before` and `now` are the facts of both answers.
///
/// A miss is a turn of which the upstream read less than 95 % of what the turn before left there, and 2,000 tokens or more
/// were lost; only tokens that this turn's prompt has can be lost.
pub fn judge(found: &Comparison, before: &Reading, now: &Reading) -> PrefixVerdict {
    let left = before.prompt.min(now.prompt);
    let Some(cached) = now.cached else {
        // A first prefix that is too short to be missed is not worth a word.
        let cause = (left >= LOST_MIN).then_some(Cause::NotReported);
        return PrefixVerdict { kept: None, lost: None, cause, at: cause.and(found.place.clone()) };
    };
    let lost = left.saturating_sub(cached);
    let is_miss = lost >= LOST_MIN && cached < share(left, KEPT_MIN);
    let cause = is_miss.then(|| cause(found, before, now, cached));
    let is_change = matches!(
        cause,
        Some(Cause::Tools | Cause::System | Cause::Messages | Cause::Hook | Cause::NotReported)
    );
    PrefixVerdict {
        kept: Some(cached),
        lost: Some(lost),
        cause,
        at: found.place.clone().filter(|_| is_change),
    }
}

/// The cause of a miss. Of two, the one that explains more.
fn cause(found: &Comparison, before: &Reading, now: &Reading, cached: u64) -> Cause {
    let by_client = |cause| Some(if found.is_setting_by_hook { Cause::Hook } else { cause });
    let other = if found.is_model_changed {
        by_client(Cause::Model)
    } else if before.upstream != now.upstream {
        Some(Cause::BoxMoved)
    } else if before.generation != now.generation {
        Some(Cause::BoxRestarted)
    } else if found.is_effort_changed {
        by_client(Cause::Effort)
    } else if found.is_thinking_changed {
        by_client(Cause::Thinking)
    } else {
        None
    };
    let change = found.place.as_ref().map(|place| match place {
        _ if found.is_by_hook => Cause::Hook,
        ChangePlace::Tool { .. } => Cause::Tools,
        ChangePlace::System { .. } => Cause::System,
        ChangePlace::Message { .. } => Cause::Messages,
    });
    // The tokens before the change, if a token has the same number of bytes everywhere.
    let total = u128::from(found.total.max(1));
    let kept = u128::from(before.prompt) * u128::from(found.common) / total;
    let kept = u64::try_from(kept).unwrap_or(u64::MAX);
    match (change, other) {
        // A change explains the loss of all that follows it, and not that of much before it.
        (Some(change), Some(other)) => {
            let is_enough = cached >= share(kept, EXPLAINED_MIN);
            // Without its cache an upstream keeps nothing, however early the change was.
            let is_empty = kept < LOST_MIN
                && (found.is_model_changed || matches!(other, Cause::BoxMoved | Cause::BoxRestarted));
            if is_enough && !is_empty { change } else { other }
        }
        (None, Some(other)) => other,
        (Some(change), None) => change,
        (None, None) => Cause::Evicted,
    }
}

fn share(tokens: u64, percent: u64) -> u64 {
    (tokens / 100).saturating_mul(percent) + tokens % 100 * percent / 100
}
