//! Learned facts as text, for the state folder: one line for each.
//!
//! A line begins with its kind and the time when it was learned, in seconds since 1970.

use std::time::{Duration, Instant};

use super::learned::Learned;
use crate::openai::Repair;
use crate::translate::{CountedPrompt, ToldWindow};

/// The present time by both clocks: a restart keeps the one in seconds since 1970, and the other one begins anew.
#[derive(Clone, Copy, Debug)]
pub struct SaveTime {
    /// The seconds since 1970.
    pub seconds: u64,
    /// The same moment.
    pub now: Instant,
}

impl SaveTime {
    fn seconds_of(self, at: Instant) -> u64 {
        self.seconds.saturating_sub(self.now.saturating_duration_since(at).as_secs())
    }

    /// The moment of so many seconds since 1970. `None`: before the machine has started, so it is not known.
    fn instant_of(self, seconds: u64) -> Option<Instant> {
        self.now.checked_sub(Duration::from_secs(self.seconds.saturating_sub(seconds)))
    }
}

impl Learned {
    /// The facts about each model as text.
    pub(super) fn to_texts(&self, time: SaveTime) -> Vec<(String, String)> {
        let text = |model: &super::learned::LearnedModel| {
            let mut text = String::new();
            let mut line = |kind: &str, at: Instant, rest: &str| {
                text.push_str(&format!("{kind} {} {rest}\n", time.seconds_of(at)));
            };
            for (at, answer) in &model.answers {
                let (estimated, told) = answer.counts();
                line("answer", *at, &format!("{estimated} {told}"));
            }
            if let Some((at, window)) = &model.window {
                line("window", *at, &format!("{} {}", window.tokens, u8::from(window.limits_answers)));
            }
            for (at, rate) in &model.prefills {
                line("prefill", *at, &rate.to_string());
            }
            for (at, repair) in &model.repairs {
                if let Some(repair) = repair.to_line() {
                    line("repair", *at, &repair);
                }
            }
            text
        };
        self.models.iter().map(|(name, model)| (name.clone(), text(model))).collect()
    }

    /// Takes over the facts about a model from before a restart. Ignores lines that are not facts.
    pub(super) fn restore(&mut self, model: &str, text: &str, time: SaveTime) {
        for line in text.lines() {
            let mut words = line.splitn(3, ' ');
            let (Some(kind), Some(at), Some(rest)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Some(at) = at.parse().ok().and_then(|at| time.instant_of(at)) else { continue };
            let pair =
                || rest.split_once(' ').and_then(|(one, two)| Some((one.parse().ok()?, two.parse().ok()?)));
            match kind {
                "answer" => {
                    if let Some(answer) =
                        pair().and_then(|(estimated, told)| CountedPrompt::of_counts(estimated, told))
                    {
                        self.learn_answer(model, answer, false, at);
                    }
                }
                "window" => {
                    if let Some((tokens, limits)) = pair().filter(|(tokens, _)| *tokens > 0) {
                        let window = ToldWindow { tokens, limits_answers: limits == 1 };
                        self.learn_window(model, window, None, at);
                    }
                }
                "prefill" => {
                    if let Ok(rate) = rest.parse() {
                        self.restore_prefill(model, rate, at);
                    }
                }
                "repair" => {
                    if let Some(repair) = Repair::from_line(rest) {
                        self.learn_repair(model, &repair, at);
                    }
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::estimate::Prompt;

    #[test]
    fn facts_survive_as_text_for_a_day() {
        let now = Instant::now();
        let mut learned = Learned::default();
        let window = ToldWindow { tokens: 4096, limits_answers: true };
        let answer = CountedPrompt::new(Prompt { text: 10_000, images: 0 }, 20_000).unwrap();
        learned.learn_window("m", window, None, now);
        learned.learn_answer("m", answer, false, now);
        learned.learn_repair("m", &Repair::Without("a b".to_owned()), now);
        learned.learn_repair("m", &Repair::BrokenImages(vec![7]), now);
        (0..3).for_each(|_| learned.learn_prefill("m", 4_000, Duration::from_secs(10), now));
        let texts = learned.to_texts(SaveTime { seconds: 1000, now });
        let mut restored = Learned::default();
        for (model, text) in &texts {
            restored.restore(model, text, SaveTime { seconds: 1000, now });
        }
        assert_eq!(restored.to_texts(SaveTime { seconds: 1000, now }), texts);
        assert_eq!(restored.lessons("m", now).window, Some(window));
        assert_eq!(restored.repairs("m", now), [Repair::Without("a b".to_owned())]);
        assert_eq!(restored.prefill("m", now), Some(400));
        // A day later nothing is believed any more.
        assert_eq!(restored.prefill("m", now + Duration::from_secs(24 * 60 * 60)), None);
    }

    #[test]
    fn other_lines_teach_nothing() {
        let time = SaveTime { seconds: 1000, now: Instant::now() };
        let mut learned = Learned::default();
        let text = "\nanswer\nanswer 1 2\nanswer x 1 2\nwindow 1000 0 0\nprefill 1000 -1\nrepair 1000 room 7\nwindow 1000 x y\nother 1000 1";
        learned.restore("m", text, time);
        assert!(learned.to_texts(time).iter().all(|(_, text)| text.is_empty()));
    }
}
