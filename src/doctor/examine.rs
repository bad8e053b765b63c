//! The examination of one upstream: the checks in order, each with its question to the server.

use std::sync::Arc;

use super::questioner::Questioner;
use super::verdict::{ServerFacts, Step, Verdict};
use super::{judge, questions};
use crate::fleet::{Discovered, Upstream};
use crate::ids;
use crate::openai::Repair;
use crate::transport::{Path, QuestionLimits};

/// Tokens of the prompt that is sent twice. It spans many cache blocks of any server, and takes seconds on a slow
/// machine.
const REPEATED_TOKENS: u64 = 1500;

/// The token limit of an answer that serves only to time its first token.
const FIRST_TOKEN: u64 = 2;

/// Examines one upstream. `named` holds the models that aliases ask it for. If the server does not answer, the other
/// checks are skipped.
pub fn examine(upstream: &Upstream, named: &[String], on_step: &mut dyn FnMut(Step<'_>)) -> Vec<Verdict> {
    let mut examination = Examination { upstream, verdicts: Vec::new(), on_step };
    examination.run(named);
    examination.verdicts
}

struct Examination<'e> {
    upstream: &'e Upstream,
    verdicts: Vec<Verdict>,
    on_step: &'e mut dyn FnMut(Step<'_>),
}

impl Examination<'_> {
    fn run(&mut self, named: &[String]) {
        let Some(found) = self.listing() else { return };
        self.tell(judge::models(&found, named));
        let config = self.upstream.config();
        let model = named.first().cloned().or_else(|| self.upstream.model());
        let Some(model) = model else { return };
        let flavour = config.settings.flavour.unwrap_or(found.flavour);
        let server = ServerFacts { flavour, model };
        self.tell(judge::window(config.settings.window.or_else(|| found.window(&server.model)), flavour));
        let asker = &mut Questioner::new(self.upstream, &server.model);
        self.tools(&server, asker);
        self.reasoning(&server, asker);
        self.speed(&server, asker);
        self.cache(&server, found.window(&server.model), asker);
        self.repairs(&server, asker);
    }

    fn begin(&mut self, check: &'static str) {
        (self.on_step)(Step::Begin(check));
    }

    fn tell(&mut self, verdict: Verdict) {
        (self.on_step)(Step::End(&verdict));
        self.verdicts.push(verdict);
    }

    /// The server's models and kind; `None` if it cannot be reached, refuses the key, or does not list its models.
    fn listing(&mut self) -> Option<Arc<Discovered>> {
        self.begin(judge::REACHABLE);
        let result = self.upstream.discover();
        let config = self.upstream.config();
        for verdict in judge::reached(&config.url, config.api_key.is_some(), &result) {
            self.tell(verdict);
        }
        result.ok()
    }

    fn tools(&mut self, server: &ServerFacts, asker: &mut Questioner<'_>) {
        self.begin(judge::FORCED_CALL);
        let forced = asker.ask(&questions::tool_call(server, "required"), |_| false);
        self.tell(judge::forced_call(&forced, asker.tried(), server));
        self.begin(judge::AUTO_CALL);
        let auto = asker.ask(&questions::tool_call(server, "auto"), |_| false);
        self.tell(judge::auto_call(&auto, server));
    }

    fn reasoning(&mut self, server: &ServerFacts, asker: &mut Questioner<'_>) {
        self.begin(judge::REASONING);
        // One piece of text or reasoning shows where the reasoning goes, so the rest is not read.
        let answer = asker.ask(&questions::thought(server), |answer| {
            !answer.reasoning.is_empty() || judge::has_think_tag(&answer.text)
        });
        self.tell(judge::reasoning(&answer, server));
    }

    fn speed(&mut self, server: &ServerFacts, asker: &mut Questioner<'_>) {
        self.begin(judge::SPEED);
        let answer = asker.ask(&questions::count(server), |_| false);
        self.tell(judge::speed(&answer));
    }

    fn cache(&mut self, server: &ServerFacts, window: Option<u64>, asker: &mut Questioner<'_>) {
        self.begin(judge::CACHE);
        let tokens = window.map_or(REPEATED_TOKENS, |window| REPEATED_TOKENS.min(window / 2));
        let question = questions::long(server, &ids::request_id(), tokens, FIRST_TOKEN);
        let first = asker.ask(&question, |_| false);
        if let Some(verdict) = judge::auto_mode(&first, self.upstream.config().auto_mode) {
            self.tell(verdict);
        }
        let before = self.cache_hits();
        let second = asker.ask(&question, |_| false);
        let after = self.cache_hits();
        let hits = before.zip(after).map(|(before, after)| after - before);
        for verdict in judge::cache(&first, &second, hits, server) {
            self.tell(verdict);
        }
    }

    /// Asks for all that servers are known to refuse, and tells which of it requests lose silently.
    fn repairs(&mut self, server: &ServerFacts, asker: &mut Questioner<'_>) {
        self.begin(judge::REPAIRS);
        let settings = self.upstream.config().settings.clone();
        let (mut known, mut refused): (Vec<Repair>, Vec<_>) = Default::default();
        for question in questions::refusable(server, &settings) {
            let of_name = asker.known_for(&question);
            known.extend(of_name.into_iter().filter(|repair| !known.contains(repair)).collect::<Vec<_>>());
            if let Err(trouble) = asker.ask(&question, |_| false) {
                refused.push((trouble, asker.tried().to_vec()));
            }
        }
        self.tell(judge::repairs(asker.learned(), &known, &refused));
    }

    /// The number of tokens that vLLM's cache has served so far. Only vLLM reports it without a flag.
    fn cache_hits(&self) -> Option<f64> {
        const METRICS_SIZE_MAX: usize = 1024 * 1024;
        let endpoint = self.upstream.endpoint();
        let limits = QuestionLimits { time: endpoint.limits().discovery_timeout, size: METRICS_SIZE_MAX };
        let page = endpoint.question(Path::Root("/metrics"), limits).ok()?;
        (page.status == 200).then(|| judge::cache_hits(&String::from_utf8_lossy(&page.body)))?
    }
}
