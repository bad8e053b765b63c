//! The speed of one model on one upstream, learned from the answers to our own requests.
//!
//! Two things are learned as one number each, since a few answers must suffice. Their dependence on the length of the
//! context and on the number of streams is fixed, and fitted to published figures of a DGX Spark: 6,265 prefill tokens a
//! second at 8 k and 2,515 at 128 k; 57.5, 78.4, 107.9, 153.5 and 218.5 tokens a second for 1, 2, 4, 8 and 16 streams of
//! gpt-oss-120b.
//!
//! Pure.

/// The context in tokens at which a token of the prompt takes twice the time of the first one.
const DOUBLE_CONTEXT: f64 = 74_000.0;

/// The weight of a new observation beside all earlier ones.
const WEIGHT: f64 = 0.25;

/// The fewest tokens of prefill from which its speed is learned: below, the time of a request is mostly other work.
const PREFILL_MIN: f64 = 1_000.0;

/// The fewest tokens of an answer from which the speed of decoding is learned.
const ANSWER_MIN: f64 = 16.0;

/// The fewest tokens that a cache should have held from which its trust is learned.
const CACHED_MIN: f64 = 500.0;

/// The speed of one model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Speed {
    /// Seconds of prefill for a token at the beginning of a prompt.
    prefill: f64,
    /// Seconds between two tokens of an answer that has the server for itself.
    step: f64,
    /// The tokens of a usual answer.
    answer: f64,
    /// The share of a prefix that the server reports as cached where we expect all of it to be.
    trust: f64,
    has_prefill: bool,
    has_step: bool,
}

impl Default for Speed {
    /// The speed to assume before the first answer: a DGX Spark's.
    fn default() -> Self {
        Speed {
            prefill: 1.45e-4,
            step: 0.0175,
            answer: 300.0,
            trust: 1.0,
            has_prefill: false,
            has_step: false,
        }
    }
}

/// The weight of a prompt's tokens that are read at the end of a context, against those at its beginning.
fn weight(uncached: f64, prompt: f64) -> f64 {
    1.0 + (2.0 * prompt - uncached) / (2.0 * DOUBLE_CONTEXT)
}

/// Moves a learned value towards an observation; the first one replaces it.
fn learn(known: &mut f64, is_known: &mut bool, observed: f64) {
    *known = if *is_known { *known + WEIGHT * (observed - *known) } else { observed };
    *is_known = true;
}

impl Speed {
    /// The seconds of prefill for the last `uncached` of `prompt` tokens.
    pub(super) fn prefill_seconds(&self, uncached: u64, prompt: u64) -> f64 {
        let (uncached, prompt) = (float(uncached), float(prompt));
        self.prefill * uncached * weight(uncached, prompt)
    }

    /// The factor by which a prediction of the prefill may be too short: nobody knows a speed that was not measured yet.
    pub(super) fn doubt(&self) -> f64 {
        if self.has_prefill { 1.0 } else { 10.0 }
    }

    /// The seconds between two tokens of each of `streams` answers at once.
    fn step_seconds(&self, streams: u32) -> f64 {
        self.step * f64::from(streams).sqrt()
    }

    /// The seconds that one more stream costs all of those that are there already.
    pub(super) fn slowdown_seconds(&self, streams: u32) -> f64 {
        let slower = self.step_seconds(streams.saturating_add(1)) - self.step_seconds(streams);
        f64::from(streams) * self.answer * slower
    }

    /// The seconds of decoding of a usual answer beside `streams` in all.
    pub(super) fn answer_seconds(&self, streams: u32) -> f64 {
        self.answer * self.step_seconds(streams.max(1))
    }

    /// The tokens of a prefix of `held` tokens that are most likely cached.
    pub(super) fn cached(&self, held: u64) -> u64 {
        whole(float(held) * self.trust)
    }

    /// Its numbers as text, for the state folder.
    pub(super) fn to_text(self) -> String {
        let Speed { prefill, step, answer, trust, has_prefill, has_step } = self;
        format!("{prefill} {step} {answer} {trust} {} {}", u8::from(has_prefill), u8::from(has_step))
    }

    /// Reads [`Speed::to_text`]. `None`: it is not such a text, or has a number that cannot be true.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut words =
            text.split(' ').map(|word| word.parse().ok().filter(|number| (0.0..1e9).contains(number)));
        let mut next = || words.next().flatten();
        let (prefill, step, answer, trust) = (next()?, next()?, next()?, next()?);
        let (has_prefill, has_step) = (next()? > 0.0, next()? > 0.0);
        let is_possible = prefill > 0.0 && step > 0.0 && answer > 0.0 && trust <= 1.0;
        is_possible.then_some(Speed { prefill, step, answer, trust, has_prefill, has_step })
    }

    /// Learns from a prompt that was alone: the server read the last `uncached` of `prompt` tokens in this time.
    pub(super) fn learn_prefill(&mut self, uncached: u64, prompt: u64, seconds: f64) {
        let (uncached, prompt) = (float(uncached), float(prompt));
        if uncached >= PREFILL_MIN && seconds > 0.0 {
            learn(&mut self.prefill, &mut self.has_prefill, seconds / (uncached * weight(uncached, prompt)));
        }
    }

    /// Learns from an answer of `tokens` that took this time beside `streams` in all.
    pub(super) fn learn_answer(&mut self, tokens: u64, seconds: f64, streams: u32) {
        let tokens = float(tokens);
        if tokens >= ANSWER_MIN && seconds > 0.0 {
            self.answer += WEIGHT / 4.0 * (tokens - self.answer);
            let step = seconds / tokens / f64::from(streams.max(1)).sqrt();
            learn(&mut self.step, &mut self.has_step, step);
        }
    }

    /// Learns how much of a prefix of `held` tokens was cached. A server that reports nothing teaches nothing.
    pub(super) fn learn_cached(&mut self, held: u64, cached: u64) {
        if float(held) >= CACHED_MIN && cached > 0 {
            self.trust += WEIGHT * ((float(cached) / float(held)).min(1.0) - self.trust);
        }
    }
}

/// A number of tokens, for calculations.
pub(super) fn float(tokens: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "tokens are far below 2^53")]
    {
        tokens as f64
    }
}

/// A number of tokens that was calculated.
pub(super) fn whole(tokens: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, far below 2^53"
    )]
    {
        tokens as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_near(value: f64, expected: f64, part: f64) -> bool {
        (value / expected - 1.0).abs() <= part
    }

    #[test]
    fn the_assumed_speed_is_that_of_a_dgx_spark() {
        let speed = Speed::default();
        for (context, rate) in [(8_192, 6_265.0), (131_072, 2_515.0)] {
            // The last thousand tokens of the context.
            let all = 1_000.0 / speed.prefill_seconds(1_000, context);
            assert!(is_near(all, rate, 0.03), "{context}: {all}");
        }
        for (streams, rate) in [(1, 57.5), (2, 78.4), (4, 107.9), (8, 153.5), (16, 218.5)] {
            let all = f64::from(streams) / speed.step_seconds(streams);
            assert!(is_near(all, rate, 0.08), "{streams}: {all}");
        }
    }

    #[test]
    fn it_learns_what_it_sees() {
        let mut speed = Speed::default();
        let before = speed.prefill_seconds(20_000, 20_000);
        // The first observation replaces the assumption.
        speed.learn_prefill(20_000, 20_000, 4.0 * before);
        assert!(is_near(speed.prefill_seconds(20_000, 20_000), 4.0 * before, 1e-9));
        for _ in 0..40 {
            speed.learn_prefill(20_000, 20_000, before);
        }
        assert!(is_near(speed.prefill_seconds(20_000, 20_000), before, 0.01));
        // The rest of a long prompt takes longer than the beginning of a short one.
        assert!(speed.prefill_seconds(2_000, 100_000) > 2.0 * speed.prefill_seconds(2_000, 2_000));
        speed.learn_answer(1_000, 10.0, 4);
        assert!(is_near(speed.step_seconds(4), 0.01, 1e-9));
        assert!(is_near(speed.step_seconds(1), 0.005, 1e-9));
        assert!(speed.slowdown_seconds(0) == 0.0 && speed.slowdown_seconds(4) > speed.slowdown_seconds(1));
    }

    #[test]
    fn it_survives_as_text() {
        let mut speed = Speed::default();
        assert_eq!(Speed::from_text(&speed.to_text()), Some(speed));
        speed.learn_prefill(20_000, 20_000, 4.0);
        speed.learn_answer(1_000, 10.0, 4);
        speed.learn_cached(10_000, 2_500);
        assert_eq!(Speed::from_text(&speed.to_text()), Some(speed));
        for text in
            ["", "1 1 1 1 1", "0 1 1 1 1 1", "1 1 1 2 1 1", "NaN 1 1 1 1 1", "1 inf 1 1 1 1", "1 -1 1 1 1 1"]
        {
            assert_eq!(Speed::from_text(text), None, "{text}");
        }
    }

    #[test]
    fn too_little_teaches_nothing() {
        let mut speed = Speed::default();
        speed.learn_prefill(999, 100_000, 50.0);
        speed.learn_prefill(5_000, 5_000, 0.0);
        speed.learn_answer(15, 10.0, 1);
        speed.learn_cached(499, 1);
        speed.learn_cached(50_000, 0);
        assert_eq!(speed, Speed::default());
    }

    #[test]
    fn a_cache_is_trusted_as_far_as_it_holds() {
        let mut speed = Speed::default();
        assert_eq!(speed.cached(10_000), 10_000);
        (0..40).for_each(|_| speed.learn_cached(10_000, 2_500));
        assert!(is_near(float(speed.cached(10_000)), 2_500.0, 0.01));
        (0..40).for_each(|_| speed.learn_cached(10_000, 12_000));
        assert!(is_near(float(speed.cached(10_000)), 10_000.0, 0.01));
    }
}
