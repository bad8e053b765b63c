//! The place of a request among those of its client, if the client's key has limits.

use std::sync::{Arc, Mutex, PoisonError};

use super::keep::now;
use crate::access::LimitCounts;
use crate::config::ClientLimits;
use crate::error::{Error, Kind, Retry};
use crate::json::Value;
use crate::server::Client;
use crate::translate::estimate;

/// The tokens of an answer that are reserved if the client names no limit.
const ANSWER_TOKENS: u64 = 4096;

/// The members that limit an answer, of the Messages API and of OpenAI's protocol.
const ANSWER_LIMITS: [&str; 3] = ["max_tokens", "max_completion_tokens", "max_output_tokens"];

/// A request that counts for its client until this value is dropped, after a panic as well.
pub(super) struct ClientSlot {
    counts: Arc<Mutex<LimitCounts>>,
    limits: Arc<ClientLimits>,
    reserved: u64,
    /// The tokens that the request has used; 0 until its end.
    used: u64,
}

impl ClientSlot {
    /// Begins a request of the client with these limits, and adds headers to its answer that tell how far the client is
    /// from them.
    ///
    /// # Errors
    /// 429: the client is at one of its limits.
    pub(super) fn take(
        counts: Arc<Mutex<LimitCounts>>,
        limits: Arc<ClientLimits>,
        client: &Client,
    ) -> Result<Self, Error> {
        let (begun, headers) = {
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            let now = now().as_secs();
            (counts.begin(&limits, now), counts.headers(&limits, now))
        };
        // Before anything else can fail: what has begun ends with this value.
        let slot = begun.map(|()| ClientSlot { counts, limits, reserved: 0, used: 0 });
        for (name, value) in headers {
            let added = client.borrow_mut().add_header(name, &value);
            added.map_err(|error| Error::new(Kind::Api, "Internal server error").source(error))?;
        }
        slot
    }

    /// The limits of the client.
    pub(super) fn limits(&self) -> &ClientLimits {
        &self.limits
    }

    /// The estimated tokens of the prompt and the most tokens of the answer; 0 without a budget.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Ends the request, which has used this many tokens.
    pub(super) fn end(mut self, used: u64) {
        self.used = used;
    }

    /// Checks the model, and reserves the tokens that the request may use.
    ///
    /// # Errors
    /// 403 for a model that the key may not use, and 429 if too few tokens are left.
    pub(super) fn check(&mut self, model: &str, body: &Value<'_>) -> Result<(), Error> {
        let limits = &self.limits;
        if !limits.allow(model) {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.uncount(limits, now().as_secs());
            let what =
                format!("the key of '{}' may use these models: {}", limits.name, limits.models.join(", "));
            return Err(Error::new(Kind::Permission, what).retry(Retry::Never));
        }
        // A request that is sent elsewhere has reserved its tokens already.
        if limits.tokens_per_day.is_none() || self.reserved > 0 {
            return Ok(());
        }
        let named = ANSWER_LIMITS.iter().find_map(|key| body.get(key).and_then(Value::as_u64));
        let answer = named.unwrap_or(ANSWER_TOKENS);
        let tokens = estimate::prompt_tokens(body).saturating_add(answer);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.reserve(limits, tokens, now().as_secs())?;
        self.reserved = tokens;
        Ok(())
    }
}

impl Drop for ClientSlot {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.end(&self.limits, self.reserved, self.used, now().as_secs());
    }
}
