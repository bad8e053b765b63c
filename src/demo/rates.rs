//! The speed of a box, fitted to published figures of one DGX Spark.
//!
//! * Prompts: 6,265 tokens/s for a prompt of 8 k tokens and 2,515 tokens/s for one of 128 k. Attention makes each token
//!   dearer by the number of tokens before it, so the time of a prompt is `a n + b n² / 2`; two figures give `a` and `b`.
//!   The same source gives 64 s for the prompt of 128 k, but 131,072 tokens at 2,515 tokens/s are 52.1 s. The rates are
//!   kept, so the 64 s are reached by a prompt of 148 k.
//! * Answers: gpt-oss-120b writes 57.5, 78.4, 107.9, 153.5 and 218.5 tokens/s in total for 1, 2, 4, 8 and 16 streams;
//!   other numbers of streams are interpolated on logarithmic scales. The model with the prompt rates above writes 97.7
//!   tokens/s alone, and is given the same growth. That decoding slows down with the context is left out: there is no
//!   figure for it.

/// Streams, and the tokens/s that gpt-oss-120b writes for all of them together.
pub const GPT_OSS_TOTALS: [(f64, f64); 5] =
    [(1.0, GPT_OSS_ALONE), (2.0, 78.4), (4.0, 107.9), (8.0, 153.5), (16.0, 218.5)];

/// The tokens/s that it writes for one stream.
const GPT_OSS_ALONE: f64 = 57.5;

/// The seconds that a box takes for its work.
#[derive(Clone, Debug)]
pub struct Rates {
    /// Seconds for a token of a prompt without context.
    prefill: f64,
    /// The seconds that each token of context adds to a token of a prompt.
    prefill_context: f64,
    /// Logarithms of the number of streams and of the seconds for one token of each of them.
    decode: Vec<(f64, f64)>,
}

impl Rates {
    /// One DGX Spark with the model of the published prompt rates.
    pub fn spark() -> Rates {
        let growth = 97.7 / GPT_OSS_ALONE;
        Rates::fitted(
            [(8192.0, 6265.0), (131_072.0, 2515.0)],
            &GPT_OSS_TOTALS.map(|(streams, total)| (streams, total * growth)),
        )
    }

    /// One DGX Spark with gpt-oss-120b. Its prompt rates are those of the other model.
    pub fn gpt_oss_120b() -> Rates {
        Rates::fitted([(8192.0, 6265.0), (131_072.0, 2515.0)], &GPT_OSS_TOTALS)
    }

    /// `prompts`: two lengths with the mean tokens/s; `totals`: streams with the tokens/s of all together.
    pub fn fitted(prompts: [(f64, f64); 2], totals: &[(f64, f64)]) -> Rates {
        // Per token, a prompt of n takes a + b n / 2 seconds.
        let [(short, fast), (long, slow)] = prompts;
        let prefill_context = 2.0 * (1.0 / slow - 1.0 / fast) / (long - short);
        let prefill = 1.0 / fast - prefill_context * short / 2.0;
        let decode =
            totals.iter().map(|(streams, total): &(f64, f64)| (streams.ln(), (streams / total).ln()));
        Rates { prefill, prefill_context, decode: decode.collect() }
    }

    /// Rates of a box that takes this many times as long for prompts alone.
    #[must_use]
    pub fn slower_prefill(&self, times: f64) -> Rates {
        Rates {
            prefill: self.prefill * times,
            prefill_context: self.prefill_context * times,
            decode: self.decode.clone(),
        }
    }

    /// A box that takes `times` as long for everything.
    #[must_use]
    pub fn slower(&self, times: f64) -> Rates {
        let slower = |(streams, seconds): &(f64, f64)| (*streams, seconds + times.ln());
        Rates { decode: self.decode.iter().map(slower).collect(), ..self.slower_prefill(times) }
    }

    /// The seconds for `tokens` of a prompt that stand behind `context` others.
    #[allow(clippy::cast_precision_loss, reason = "counts of tokens are far below 2^52")]
    pub fn prefill(&self, context: u64, tokens: u64) -> f64 {
        let (context, tokens) = (context as f64, tokens as f64);
        self.prefill * tokens + self.prefill_context * (context + tokens / 2.0) * tokens
    }

    /// The seconds in which each of `streams` answers grows by one token.
    #[allow(clippy::cast_precision_loss, reason = "a number of streams is far below 2^52")]
    pub fn decode(&self, streams: usize) -> f64 {
        if streams == 0 {
            return 0.0;
        }
        let at = (streams as f64).ln();
        // Beyond the last figure the last slope goes on.
        let mut pairs = self.decode.iter().zip(self.decode.iter().skip(1));
        let last = pairs.clone().next_back();
        let Some(((low, from), (high, to))) = pairs.find(|(_, (high, _))| *high >= at).or(last) else {
            return 0.0;
        };
        let slope = (to - from) / (high - low);
        (from + slope * (at - low)).exp()
    }
}
