//! Estimates how many tokens a prompt has at one model, from the counts in that model's earlier answers.
//!
//! # Model
//!
//! A prompt of `n` estimated tokens ([`estimate`](super::estimate)) has `ratio * n + constant` real ones. The ratio
//! belongs to the model's tokenizer. The constant belongs to its template: the words that it puts around every prompt.
//!
//! Two questions have different answers:
//! - [`Estimator::tokens`]: how many tokens the prompt most likely has. Clients are sent this number.
//! - [`Estimator::least`]: how many tokens the prompt has at the least. Only this may cut the room for an answer: the
//!   upstream refuses a `max_tokens` that is too large, and the request is repaired; one that is too small cuts an
//!   answer and nobody notices.
//!
//! Each answer is kept as a pair: the estimate, and the upstream's count. The estimate is the one by rule of thumb,
//! before any ratio is applied. So neither the order of the answers nor the number of requests under way at a time
//! matters.
//!
//! This module has no clock: the caller leaves out answers that are too old.

use super::estimate::{Prompt, float, whole};

/// The number of answers that are remembered for a model. A new one replaces the oldest.
pub const ANSWERS_MAX: usize = 32;

/// A prompt of fewer estimated tokens teaches nothing: its count is mostly the template's constant.
const TEACHING_PROMPT_MIN: u64 = 500;

/// The fewest and the most real tokens for one estimated token: from text with many spaces to scripts with one token
/// per byte.
const RATIO: (f64, f64) = (0.5, 2.5);

/// The most tokens that a template puts around a prompt, with a margin for rounding.
const CONSTANT_MAX: f64 = 2_100.0;

/// An answer further outside the range than this factor is a miscount, not a tokenizer: the server cut the prompt, or
/// counts only the tokens that its cache did not have.
const MISCOUNT: f64 = 0.8;

/// An answer is evidence for the least number of tokens of prompts up to this many times its size.
const REACH: f64 = 4.0;

/// How far a ratio may be from 1 and a constant from 0 before anything is known: one standard deviation each.
const RATIO_SPREAD: f64 = 0.5;
const CONSTANT_SPREAD: f64 = 500.0;

/// The variance of a count, for each of its tokens: the count of a prompt of 10,000 tokens is accurate to within 3 %.
/// Larger prompts therefore weigh more.
const VARIANCE_PER_TOKEN: f64 = 9.0;

/// An answer to learn from: the estimate for its prompt, and the upstream's count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CountedPrompt {
    estimated: u32,
    told: u32,
}

impl CountedPrompt {
    /// The answer to `prompt`, for which the upstream counted `told` tokens. `None` if there is nothing to learn from
    /// it: the prompt is small, or it contains images (each costs what the model makes of it), or the count cannot be
    /// right.
    pub fn new(prompt: Prompt, told: u64) -> Option<CountedPrompt> {
        if prompt.images > 0 || prompt.text < TEACHING_PROMPT_MIN {
            return None;
        }
        let answer =
            CountedPrompt { estimated: u32::try_from(prompt.text).ok()?, told: u32::try_from(told).ok()? };
        let (estimated, told) = answer.floats();
        let least = RATIO.0 * MISCOUNT * estimated;
        let most = RATIO.1 / MISCOUNT * estimated + CONSTANT_MAX;
        (least..=most).contains(&told).then_some(answer)
    }

    /// An answer by its two numbers of tokens: estimated, and told.
    pub fn of_counts(estimated: u64, told: u64) -> Option<CountedPrompt> {
        CountedPrompt::new(Prompt { text: estimated, images: 0 }, told)
    }

    /// The tokens of the prompt, estimated and as the upstream counted them.
    pub fn counts(&self) -> (u32, u32) {
        (self.estimated, self.told)
    }

    /// True if `larger` answers a clearly larger prompt, and yet its count is not larger. A server that cuts prompts
    /// counts so.
    pub fn is_cut_in(&self, larger: &CountedPrompt) -> bool {
        larger.estimated / 5 > self.estimated / 4 && larger.told <= self.told
    }

    fn floats(self) -> (f64, f64) {
        (f64::from(self.estimated), f64::from(self.told))
    }

    /// The fewest tokens that a prompt of `estimated` tokens can have, if this answer's count was right. Of all lines
    /// through this answer with a ratio and a constant in their ranges, it is the one that is lowest there.
    fn least(self, estimated: f64) -> f64 {
        let (answered, told) = self.floats();
        let slope = match estimated < answered {
            true => (told / answered).min(RATIO.1),
            false => ((told - CONSTANT_MAX) / answered).max(RATIO.0),
        };
        told + slope * (estimated - answered)
    }
}

/// How a model counts tokens, as learned from its answers. Without any answer an estimated token is a real one.
#[derive(Clone, Copy, Debug)]
pub struct Estimator {
    ratio: f64,
    constant: f64,
    answers: [CountedPrompt; ANSWERS_MAX],
    count: usize,
}

impl Default for Estimator {
    fn default() -> Self {
        Estimator { ratio: 1.0, constant: 0.0, answers: [CountedPrompt::default(); ANSWERS_MAX], count: 0 }
    }
}

impl FromIterator<CountedPrompt> for Estimator {
    /// Learns from the first [`ANSWERS_MAX`] of these answers. Their order does not matter.
    fn from_iter<I: IntoIterator<Item = CountedPrompt>>(answers: I) -> Self {
        let mut estimator = Estimator::default();
        for (slot, answer) in estimator.answers.iter_mut().zip(answers) {
            *slot = answer;
            estimator.count += 1;
        }
        (estimator.ratio, estimator.constant) = fit(estimator.answers());
        estimator
    }
}

impl Estimator {
    /// The most likely number of the prompt's tokens, at least 1. Images are not scaled.
    pub fn tokens(&self, prompt: Prompt) -> u64 {
        let text = self.ratio * float(prompt.text) + self.constant;
        whole(text).max(1).saturating_add(prompt.images)
    }

    /// The fewest tokens that the prompt can have. Images count as nothing here: some models make 256 tokens of any
    /// image.
    ///
    /// If several answers apply, the lowest result is used, so that a single odd answer (a page of base64) does not
    /// make prompts seem larger.
    pub fn least(&self, prompt: Prompt) -> u64 {
        let text = float(prompt.text);
        let reach = self.answers().iter().filter(|answer| text <= REACH * f64::from(answer.estimated));
        let told = reach.map(|answer| answer.least(text)).reduce(f64::min);
        let least = told.unwrap_or(RATIO.0 * text).max(0.0);
        whole(least.floor())
    }

    fn answers(&self) -> &[CountedPrompt] {
        self.answers.get(..self.count).unwrap_or_default()
    }
}

/// The ratio and the constant that explain the answers best, by least squares. The values expected before any answer
/// count as one more observation each, so that a single answer moves the ratio and hardly changes the constant.
fn fit(answers: &[CountedPrompt]) -> (f64, f64) {
    let (ratio_weight, constant_weight) = (RATIO_SPREAD.powi(-2), CONSTANT_SPREAD.powi(-2));
    // The sums of the normal equations, over the differences from the expected values.
    let (mut xx, mut x, mut one, mut xy, mut y) = (ratio_weight, 0.0, constant_weight, 0.0, 0.0);
    for answer in answers {
        let (estimated, told) = answer.floats();
        let weight = 1.0 / (VARIANCE_PER_TOKEN * told.max(1.0));
        let difference = told - estimated;
        xx += weight * estimated * estimated;
        x += weight * estimated;
        one += weight;
        xy += weight * estimated * difference;
        y += weight * difference;
    }
    let constant = (xx * y - x * xy) / (xx * one - x * x);
    // If the constant reaches the edge of its range, it is fixed there, and the ratio has to explain the rest.
    let constant = constant.clamp(0.0, CONSTANT_MAX);
    let ratio = 1.0 + (xy - constant * x) / xx;
    (ratio.clamp(RATIO.0 * MISCOUNT, RATIO.1 / MISCOUNT), constant)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random and are the same in every run.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, low: u64, high: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            low + (self.0 >> 33) % (high - low + 1)
        }
    }

    /// How a model really counts.
    #[derive(Clone, Copy, Debug)]
    struct Truth {
        ratio: f64,
        constant: f64,
    }

    impl Truth {
        fn tokens(self, text: u64) -> u64 {
            whole((self.ratio * float(text) + self.constant).floor())
        }
    }

    fn text(text: u64) -> Prompt {
        Prompt { text, images: 0 }
    }

    fn truths() -> impl Iterator<Item = Truth> {
        let ratios = [0.5, 0.7, 1.0, 1.3, 1.7, 2.1, 2.5];
        let constants = [0.0, 30.0, 400.0, 1000.0, 2000.0];
        ratios.into_iter().flat_map(move |ratio| constants.map(|constant| Truth { ratio, constant }))
    }

    fn sizes(dice: &mut Dice, count: usize) -> Vec<u64> {
        // As many small ones as large ones: the sizes differ in their order of magnitude, not only in their first
        // digit.
        let size = |dice: &mut Dice| {
            let high = [4_000, 20_000, 100_000][usize::try_from(dice.roll(0, 2)).unwrap()];
            dice.roll(2_000, high)
        };
        (0..count).map(|_| size(dice)).collect()
    }

    #[test]
    fn after_ten_answers_the_estimate_is_within_a_tenth() {
        let mut dice = Dice(1);
        let mut worst: f64 = 0.0;
        for truth in truths() {
            for _ in 0..40 {
                let sizes = sizes(&mut dice, 10);
                let answers =
                    sizes.iter().filter_map(|size| CountedPrompt::new(text(*size), truth.tokens(*size)));
                let estimator: Estimator = answers.collect();
                let seen = sizes.iter().copied();
                let largest = *sizes.iter().max().unwrap();
                for size in seen.chain([2_000, 5_000, 10_000, largest, 2 * largest]) {
                    let (told, real) = (float(estimator.tokens(text(size))), float(truth.tokens(size)));
                    worst = worst.max((told - real).abs() / real);
                    assert!(
                        (told - real).abs() <= 0.1 * real,
                        "{truth:?} {size}: {told} of {real}, {sizes:?}"
                    );
                }
            }
        }
        println!("the worst estimate is {:.1} % off", 100.0 * worst);
    }

    #[test]
    fn the_least_is_never_more_than_the_truth() {
        let mut dice = Dice(2);
        for truth in truths() {
            for count in [0, 1, 2, 3, 10, 40] {
                for _ in 0..20 {
                    let sizes = sizes(&mut dice, count);
                    let answers =
                        sizes.iter().filter_map(|size| CountedPrompt::new(text(*size), truth.tokens(*size)));
                    let estimator: Estimator = answers.collect();
                    let size = dice.roll(1, 120_000);
                    let (least, real) = (estimator.least(text(size)), truth.tokens(size));
                    assert!(least <= real + 1, "{truth:?} {size}: {least} of {real}, {sizes:?}");
                }
            }
        }
    }

    #[test]
    fn the_least_is_close_to_the_truth_once_something_similar_was_answered() {
        let truth = Truth { ratio: 1.3, constant: 300.0 };
        let estimator: Estimator = [50_000, 52_000, 55_000]
            .iter()
            .filter_map(|size| CountedPrompt::new(text(*size), truth.tokens(*size)))
            .collect();
        let (least, real) = (float(estimator.least(text(58_000))), float(truth.tokens(58_000)));
        assert!(least > 0.98 * real, "{least} of {real}");
    }

    #[test]
    fn the_order_does_not_matter() {
        let truth = Truth { ratio: 1.7, constant: 900.0 };
        let mut sizes = sizes(&mut Dice(3), 12);
        let learn = |sizes: &[u64]| -> Estimator {
            sizes.iter().filter_map(|size| CountedPrompt::new(text(*size), truth.tokens(*size))).collect()
        };
        let forwards = learn(&sizes).tokens(text(30_000));
        sizes.reverse();
        assert_eq!(learn(&sizes).tokens(text(30_000)), forwards);
    }

    #[test]
    fn what_does_not_teach() {
        let image = Prompt { text: 10_000, images: 1_600 };
        for (prompt, told) in [
            (text(6), 40),          // "quota"
            (text(499), 499),       // small
            (image, 10_500),        // a screenshot
            (text(16_700), 4_096),  // a prompt that was cut
            (text(16_700), 0),      // not counted
            (text(16_700), 90_000), // a miscount
        ] {
            assert_eq!(CountedPrompt::new(prompt, told), None, "{prompt:?} {told}");
        }
        assert!(CountedPrompt::new(text(16_700), 16_739).is_some());
    }

    #[test]
    fn images_are_counted_and_not_scaled_and_not_held_against_the_answer() {
        let truth = Truth { ratio: 2.0, constant: 0.0 };
        let estimator: Estimator = [3_000, 9_000, 20_000]
            .iter()
            .filter_map(|size| CountedPrompt::new(text(*size), truth.tokens(*size)))
            .collect();
        let prompt = Prompt { text: 9_000, images: 8_000 };
        let tokens = estimator.tokens(prompt);
        assert!((25_500..26_500).contains(&tokens), "{tokens}");
        assert!(estimator.least(prompt) <= 18_000);
        assert_eq!(Estimator::default().tokens(Prompt { text: 0, images: 0 }), 1);
    }

    #[test]
    fn one_odd_answer_moves_the_least_only_downwards() {
        let mut answers: Vec<CountedPrompt> = Vec::new();
        answers.extend(CountedPrompt::new(text(20_000), 50_000)); // a page of base64
        let odd: Estimator = answers.iter().copied().collect();
        answers.extend(CountedPrompt::new(text(21_000), 21_000));
        let both: Estimator = answers.iter().copied().collect();
        assert!(odd.least(text(20_000)) == 50_000);
        assert!(both.least(text(20_000)) <= 20_000, "{}", both.least(text(20_000)));
    }
}
