//! The facts that answers and refusals have shown about an upstream's models, and for how long they are believed.
//!
//! | learned | from | forgotten, besides the rules for all |
//! |---|---|---|
//! | how a model counts prompts | the counts of its answers | the oldest of [`ANSWERS_MAX`] answers is dropped for a new one |
//! | a context window | a refusal that names it | when the server accepts more than it, or an answer ended at a limit that it set |
//! | how fast a model reads prompts | answers to prompts with many new tokens | the oldest of [`PREFILLS_MAX`] is dropped for a new one |
//! | a repair | a request that was refused without it and served with it | the oldest of [`REPAIRS_MAX`] is dropped for a new one; all at a reload |
//! | the count of a prompt | a count by the server | the oldest of [`COUNTS_MAX`] is dropped for a new one |
//!
//! Rules for all: everything is forgotten when the server was restarted or its models changed (another *generation*),
//! everything about a model when a refusal names a window other than the known one, and each fact a day after it was
//! learned.
//!
//! Reads no clock: `now` is an argument. Knows nothing of upstreams: the generation is an argument, too.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::openai::Repair;
use crate::translate::{ANSWERS_MAX, CountedPrompt, Lessons, ToldWindow};

/// The time for which a learned fact is believed.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The most missing models of one upstream that are remembered: their names may come from clients.
const MISSING_MAX: usize = 32;

/// The most models of an upstream about which facts are kept. Clients can make names up; beyond this number, all facts
/// are forgotten, and those about the models in use are learned again.
const MODELS_MAX: usize = 1000;

/// The longest model name about which facts are kept, in bytes.
const NAME_SIZE_MAX: usize = 512;

/// The most counts that are remembered. Claude Code repeatedly asks for the count of the same parts of a conversation.
const COUNTS_MAX: usize = 128;

/// The most repairs that are remembered for a model. A model needs a handful; images that it cannot decode add one each.
const REPAIRS_MAX: usize = 32;

/// The least part of a prompt that was not cached, in tokens, whose time shows how fast the server reads: the time of a
/// shorter one is mostly that of its first token.
const PREFILL_TOKENS_MIN: u64 = 2000;

/// The most answers whose speed is remembered for a model, and the fewest that say something. The fastest one counts, as
/// others waited for requests that the server worked on at the same time, or for the model to be loaded.
const PREFILLS_MAX: usize = 8;
const PREFILLS_MIN: usize = 3;

/// Two windows are the same if they differ by at most one part in this many: servers keep a few tokens of a window for
/// themselves.
const WINDOW_TOLERANCE: u64 = 16;

/// The learned facts about one upstream's models. All of them are about one generation of the server.
#[derive(Debug, Default)]
pub(super) struct Learned {
    generation: u64,
    pub(super) models: HashMap<String, LearnedModel>,
    /// The hash of the question, the count, and the time when it was counted.
    counts: VecDeque<(u64, u64, Instant)>,
    /// The listing that facts from before a restart are about; `None` once it was compared with the server's.
    pub(super) restored: Option<u64>,
    /// The models that the server has said it does not have.
    missing: Vec<(Instant, String)>,
    /// True once the log has warned that the server cuts prompts.
    warned_of_cut_prompt: bool,
}

/// The learned facts about one model.
#[derive(Debug, Default)]
pub(super) struct LearnedModel {
    pub(super) answers: VecDeque<(Instant, CountedPrompt)>,
    pub(super) window: Option<(Instant, ToldWindow)>,
    /// The repairs, in the order in which they are made.
    pub(super) repairs: VecDeque<(Instant, Repair)>,
    /// The new tokens of prompts that were read in a second.
    pub(super) prefills: VecDeque<(Instant, u64)>,
    /// True once the server has recognized a call of the model.
    parses_calls: bool,
}

impl LearnedModel {
    /// Forgets the facts that are too old.
    fn expire(&mut self, now: Instant) {
        while self.answers.front().is_some_and(|(at, _)| is_old(*at, now)) {
            self.answers.pop_front();
        }
        self.window = self.window.filter(|(at, _)| !is_old(*at, now));
        self.repairs.retain(|(at, _)| !is_old(*at, now));
        self.prefills.retain(|(at, _)| !is_old(*at, now));
    }
}

fn is_old(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) >= AGE_MAX
}

/// True if two context windows are the same, within the precision with which servers report them.
pub(super) fn is_same_window(one: u64, other: u64) -> bool {
    one.abs_diff(other) <= one.max(other) / WINDOW_TOLERANCE
}

impl Learned {
    /// Forgets everything if the server's generation is another than the one that the facts are about.
    pub(super) fn follow(&mut self, generation: u64) {
        if self.generation != generation {
            *self = Learned { generation, ..Learned::default() };
        }
    }

    /// Forgets facts from before a restart if the server's listing is another one by now. `identity` is its hash; 0: it
    /// is not known yet.
    pub(super) fn compare_listing(&mut self, identity: u64) {
        if identity != 0 && self.restored.take().is_some_and(|restored| restored != identity) {
            *self = Learned { generation: self.generation, ..Learned::default() };
        }
    }

    /// The facts that the translation of a request for `model` needs.
    pub(super) fn lessons(&mut self, model: &str, now: Instant) -> Lessons {
        let Some(model) = self.known(model, now) else { return Lessons::default() };
        Lessons {
            tokens: model.answers.iter().map(|(_, answer)| *answer).collect(),
            window: model.window.map(|(_, window)| window),
        }
    }

    /// The repairs that requests for the model need, in the order in which they are made.
    pub(super) fn repairs(&mut self, model: &str, now: Instant) -> Vec<Repair> {
        let model = self.known(model, now);
        model.into_iter().flat_map(|model| &model.repairs).map(|(_, repair)| repair.clone()).collect()
    }

    /// Notes that requests for the model need this repair. Returns true if that was not known before.
    pub(super) fn learn_repair(&mut self, model: &str, repair: &Repair, now: Instant) -> bool {
        let Some(model) = self.model(model, now) else { return false };
        if model.repairs.iter().any(|(_, known)| known == repair) {
            return false;
        }
        if model.repairs.len() >= REPAIRS_MAX {
            model.repairs.pop_front();
        }
        model.repairs.push_back((now, repair.clone()));
        true
    }

    /// Notes that the server has recognized a call of the model, so its parser is the right one.
    pub(super) fn learn_parsed_call(&mut self, model: &str, now: Instant) {
        if let Some(model) = self.model(model, now) {
            model.parses_calls = true;
        }
    }

    /// Notes that the server has dropped the end of an answer. If it has never recognized a call of the model, its parser is
    /// another model's, and later calls come as text; otherwise the model has slipped. Returns true if that is news.
    pub(super) fn learn_dropped_call(&mut self, model: &str, now: Instant) -> bool {
        let has_parser = self.model(model, now).is_none_or(|model| model.parses_calls);
        !has_parser && self.learn_repair(model, &Repair::CallsAsText, now)
    }

    /// Forgets all repairs: the operator has loaded the configuration again, maybe because of them.
    pub(super) fn forget_repairs(&mut self) {
        self.models.values_mut().for_each(|model| model.repairs.clear());
        self.missing.clear();
    }

    /// Notes that the server does not have this model. Returns true if that was not known before.
    pub(super) fn learn_missing(&mut self, model: &str, now: Instant) -> bool {
        if self.is_missing(model, now) {
            return false;
        }
        self.missing.retain(|(at, name)| !is_old(*at, now) && name != model);
        if self.missing.len() >= MISSING_MAX {
            self.missing.remove(0);
        }
        self.missing.push((now, model.to_owned()));
        true
    }

    /// True if the server has said that it does not have this model.
    pub(super) fn is_missing(&self, model: &str, now: Instant) -> bool {
        self.missing.iter().any(|(at, name)| name == model && !is_old(*at, now))
    }

    /// Notes the window that a refusal named; `before` is the window that was known. A different window means that the
    /// server is configured differently, so everything else that was known about the model is forgotten. Returns true
    /// if it is different.
    pub(super) fn learn_window(
        &mut self,
        model: &str,
        mut window: ToldWindow,
        before: Option<u64>,
        now: Instant,
    ) -> bool {
        let Some(model) = self.model(model, now) else { return false };
        let told = model.window.map(|(_, told)| told);
        let before = before.or(told.map(|told| told.tokens));
        let is_other = before.is_some_and(|before| !is_same_window(before, window.tokens));
        if is_other {
            *model = LearnedModel::default();
        } else {
            window.limits_answers |= told.is_some_and(|told| told.limits_answers);
        }
        model.window = Some((now, window));
        is_other
    }

    /// Forgets the window that a refusal named, because it is wrong by now.
    pub(super) fn forget_window(&mut self, model: &str, now: Instant) {
        if let Some(model) = self.known(model, now) {
            model.window = None;
        }
    }

    /// Learns from an answer how the model counts. `may_cut`: the server silently cuts prompts (Ollama), so that a
    /// count that does not grow with the prompt teaches nothing. Returns true if something was learned.
    pub(super) fn learn_answer(
        &mut self,
        model: &str,
        answer: CountedPrompt,
        may_cut: bool,
        now: Instant,
    ) -> bool {
        let Some(model) = self.model(model, now) else { return false };
        if may_cut && model.answers.iter().any(|(_, smaller)| smaller.is_cut_in(&answer)) {
            return false;
        }
        if model.answers.len() >= ANSWERS_MAX {
            model.answers.pop_front();
        }
        model.answers.push_back((now, answer));
        true
    }

    /// Learns from the time until an answer began how fast the model reads. `tokens` are those of its prompt that were not
    /// cached.
    pub(super) fn learn_prefill(&mut self, model: &str, tokens: u64, time: Duration, now: Instant) {
        if tokens >= PREFILL_TOKENS_MIN {
            let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
            self.restore_prefill(model, tokens.saturating_mul(1000) / milliseconds, now);
        }
    }

    /// Notes how many new tokens of a prompt the model has read in a second.
    pub(super) fn restore_prefill(&mut self, model: &str, rate: u64, now: Instant) {
        let Some(model) = self.model(model, now) else { return };
        if model.prefills.len() >= PREFILLS_MAX {
            model.prefills.pop_front();
        }
        model.prefills.push_back((now, rate));
    }

    /// The new tokens of a prompt that the model reads in a second, if enough answers have shown it.
    pub(super) fn prefill(&mut self, model: &str, now: Instant) -> Option<u64> {
        let prefills = &self.known(model, now)?.prefills;
        let fastest = prefills.iter().map(|(_, rate)| *rate).max();
        fastest.filter(|_| prefills.len() >= PREFILLS_MIN)
    }

    /// True if the log must still warn that the server cuts prompts; it does so once for each generation.
    pub(super) fn is_first_cut_prompt(&mut self) -> bool {
        !std::mem::replace(&mut self.warned_of_cut_prompt, true)
    }

    /// The count of the question with this hash, if the server has counted it before.
    pub(super) fn count(&self, question: u64, now: Instant) -> Option<u64> {
        let mut counts = self.counts.iter();
        let found = counts.find(|(known, _, at)| *known == question && !is_old(*at, now));
        found.map(|(_, count, _)| *count)
    }

    /// Notes the server's count for the question with this hash.
    pub(super) fn learn_count(&mut self, question: u64, count: u64, now: Instant) {
        self.counts.retain(|(known, ..)| *known != question);
        if self.counts.len() >= COUNTS_MAX {
            self.counts.pop_front();
        }
        self.counts.push_back((question, count, now));
    }

    /// The facts about the model, if there are any.
    fn known(&mut self, model: &str, now: Instant) -> Option<&mut LearnedModel> {
        let model = self.models.get_mut(model)?;
        model.expire(now);
        Some(model)
    }

    /// The facts about the model, to be added to. `None`: its name is too long.
    fn model(&mut self, name: &str, now: Instant) -> Option<&mut LearnedModel> {
        if name.len() > NAME_SIZE_MAX {
            return None;
        }
        if self.models.len() >= MODELS_MAX && !self.models.contains_key(name) {
            self.models.clear();
        }
        let model = self.models.entry(name.to_string()).or_default();
        model.expire(now);
        Some(model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::estimate::Prompt;

    fn answer(estimated: u64, told: u64) -> CountedPrompt {
        CountedPrompt::new(Prompt { text: estimated, images: 0 }, told).unwrap()
    }

    fn window(tokens: u64) -> ToldWindow {
        ToldWindow { tokens, limits_answers: false }
    }

    fn tokens(learned: &mut Learned, now: Instant) -> u64 {
        learned.lessons("m", now).tokens.tokens(Prompt { text: 10_000, images: 0 })
    }

    /// Facts of every sort.
    fn learned(now: Instant) -> Learned {
        let mut learned = Learned::default();
        assert!(learned.learn_answer("m", answer(10_000, 20_000), false, now));
        assert!(!learned.learn_window("m", window(4096), None, now));
        assert!(learned.learn_repair("m", &Repair::NoImages, now));
        assert!(learned.learn_repair("m", &Repair::Alternation, now));
        learned.learn_count(7, 70, now);
        assert!(knows(&mut learned, now).iter().all(|known| *known));
        learned
    }

    /// True for each sort that is known: the counting, the window, the two repairs, and the count.
    fn knows(learned: &mut Learned, now: Instant) -> [bool; 5] {
        [
            tokens(learned, now) > 15_000,
            learned.lessons("m", now).window.is_some(),
            learned.repairs("m", now).contains(&Repair::NoImages),
            learned.repairs("m", now).contains(&Repair::Alternation),
            learned.count(7, now).is_some(),
        ]
    }

    #[test]
    fn everything_is_forgotten_after_a_day() {
        let now = Instant::now();
        let mut learned = learned(now);
        assert_eq!(knows(&mut learned, now + AGE_MAX - Duration::from_secs(1)), [true; 5]);
        assert_eq!(knows(&mut learned, now + AGE_MAX), [false; 5]);
        assert!(learned.learn_repair("m", &Repair::NoImages, now + AGE_MAX), "it is news again");
    }

    #[test]
    fn everything_is_forgotten_with_another_generation() {
        let now = Instant::now();
        let mut learned = learned(now);
        learned.follow(0);
        assert_eq!(knows(&mut learned, now), [true; 5]);
        learned.follow(1);
        assert_eq!(knows(&mut learned, now), [false; 5]);
        assert!(learned.is_first_cut_prompt() && !learned.is_first_cut_prompt());
        learned.follow(2);
        assert!(learned.is_first_cut_prompt());
    }

    #[test]
    fn a_reload_forgets_the_repairs_alone() {
        let now = Instant::now();
        let mut learned = learned(now);
        assert!(!learned.learn_repair("m", &Repair::NoImages, now), "it is known");
        learned.forget_repairs();
        assert_eq!(knows(&mut learned, now), [true, true, false, false, true]);
    }

    #[test]
    fn a_missing_model_is_known_until_the_server_changes() {
        let (mut learned, now) = (Learned::default(), Instant::now());
        assert!(learned.learn_missing("m", now) && !learned.learn_missing("m", now));
        assert!(
            learned.is_missing("m", now)
                && !learned.is_missing("n", now)
                && !learned.is_missing("m", now + AGE_MAX)
        );
        learned.follow(1);
        assert!(!learned.is_missing("m", now));
        (0..99).for_each(|number| assert!(learned.learn_missing(&number.to_string(), now)));
        assert_eq!(learned.missing.len(), MISSING_MAX);
        learned.forget_repairs();
        assert!(!learned.is_missing("98", now), "a reload");
    }

    #[test]
    fn another_window_forgets_the_model_and_the_same_one_nothing() {
        let now = Instant::now();
        for (told, before, is_other) in
            [(4096, None, false), (4090, None, false), (8192, None, true), (4096, Some(8192), true)]
        {
            let mut learned = learned(now);
            assert_eq!(learned.learn_window("m", window(told), before, now), is_other, "{told} {before:?}");
            assert_eq!(knows(&mut learned, now), [!is_other, true, !is_other, !is_other, true]);
            assert_eq!(learned.lessons("m", now).window, Some(window(told)));
        }
    }

    #[test]
    fn a_window_that_does_not_stand_is_forgotten_alone() {
        let now = Instant::now();
        let mut learned = learned(now);
        learned.forget_window("m", now);
        learned.forget_window("unknown", now);
        assert_eq!(knows(&mut learned, now), [true, false, true, true, true]);
    }

    #[test]
    fn a_window_that_limits_answers_goes_on_to_do_so() {
        let now = Instant::now();
        let mut learned = Learned::default();
        let strict = ToldWindow { tokens: 4096, limits_answers: true };
        learned.learn_window("m", strict, None, now);
        learned.learn_window("m", window(4096), None, now);
        assert_eq!(learned.lessons("m", now).window, Some(strict));
        learned.learn_window("m", window(16_384), None, now);
        assert_eq!(learned.lessons("m", now).window, Some(window(16_384)));
    }

    #[test]
    fn a_count_that_does_not_grow_is_a_cut_prompt() {
        let now = Instant::now();
        let mut learned = Learned::default();
        assert!(learned.learn_answer("m", answer(8_000, 8_192), true, now));
        for estimated in [10_100, 14_000, 16_000] {
            assert!(!learned.learn_answer("m", answer(estimated, 8_192), true, now), "{estimated}");
        }
        assert!(learned.learn_answer("m", answer(16_000, 16_400), true, now), "the window was enlarged");
        assert!(learned.learn_answer("m", answer(30_000, 16_400), false, now), "not every server cuts");
    }

    #[test]
    fn the_fastest_of_the_newest_answers_tells_how_prompts_are_read() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut learned = Learned::default();
        for (tokens, seconds, expected) in
            [(4_000, 40, None), (4_000, 10, None), (PREFILL_TOKENS_MIN - 1, 1, None), (4_000, 80, Some(400))]
        {
            learned.learn_prefill("m", tokens, seconds * second, now);
            assert_eq!(learned.prefill("m", now), expected, "{tokens} in {seconds} s");
        }
        for _ in 0..PREFILLS_MAX {
            learned.learn_prefill("m", 4_000, Duration::ZERO, now);
        }
        assert_eq!(learned.prefill("m", now), Some(4_000_000));
        assert_eq!((learned.prefill("m", now + AGE_MAX), learned.prefill("other", now)), (None, None));
    }

    #[test]
    fn the_newest_answers_count() {
        let now = Instant::now();
        let mut learned = Learned::default();
        for _ in 0..ANSWERS_MAX {
            learned.learn_answer("m", answer(10_000, 25_000), false, now);
        }
        for _ in 0..ANSWERS_MAX {
            learned.learn_answer("m", answer(10_000, 9_000), false, now);
        }
        assert!((8_900..9_200).contains(&tokens(&mut learned, now)));
    }

    #[test]
    fn names_and_counts_are_bounded() {
        let now = Instant::now();
        let mut learned = Learned::default();
        assert!(!learned.learn_repair(&"m".repeat(NAME_SIZE_MAX + 1), &Repair::NoImages, now));
        for i in 0..2 * MODELS_MAX {
            learned.learn_repair(&format!("m{i}"), &Repair::NoImages, now);
        }
        assert!(learned.models.len() <= MODELS_MAX);
        for i in 0..1000 {
            learned.learn_repair("m", &Repair::BrokenImages(vec![i]), now);
        }
        assert_eq!(learned.repairs("m", now).len(), REPAIRS_MAX);
        assert_eq!(learned.repairs("m", now).last(), Some(&Repair::BrokenImages(vec![999])));
        for i in 0..1000 {
            learned.learn_count(i, i, now);
            learned.learn_count(i, i + 1, now);
        }
        assert_eq!(learned.counts.len(), COUNTS_MAX);
        assert_eq!((learned.count(999, now), learned.count(0, now)), (Some(1000), None));
    }
}
