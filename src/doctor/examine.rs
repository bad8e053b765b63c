//! The examination of one upstream: the checks in order, each with its question to the server.

use std::rc::Rc;
use std::sync::Arc;

use super::calls::{self, CallAnswer};
use super::questioner::Questioner;
use super::verdict::{Level, ServerFacts, Step, Verdict};
use super::{judge, questions, reach};
use crate::fleet::{Discovered, Upstream};
use crate::hooks::Hooks;
use crate::ids;
use crate::openai::Repair;
use crate::probe::{Trouble, refusal_words};
use crate::transport::{Failure, Path, QuestionLimits, Wait};

/// Tokens of the prompt that is sent twice. It spans many cache blocks of any server, and takes seconds on a slow
/// machine.
const REPEATED_TOKENS: u64 = 1500;

/// The token limit of an answer that serves only to time its first token.
const FIRST_TOKEN: u64 = 2;

/// vLLM's counter of the tokens that its cache has served so far, and that of the requests that it has interrupted, because
/// the cache was full.
const CACHE_HITS: &str = "vllm:prefix_cache_hits_total";
const INTERRUPTED: &str = "vllm:num_preemptions_total";

/// The subject of an examination.
#[derive(Clone, Copy)]
pub struct Patient<'p> {
    /// The upstream.
    pub upstream: &'p Upstream,
    /// The hooks that its requests go through.
    pub hooks: &'p Hooks,
    /// The models that aliases ask it for.
    pub named: &'p [String],
    /// The names of the aliases that lead to it, without those that have a `*`.
    pub aliases: &'p [String],
    /// The model to examine; `None`: the first of `named`, otherwise the upstream's own.
    pub model: Option<&'p str>,
    /// Called while the server is silent, to show that it is waited for.
    pub wait: &'p Rc<dyn Wait>,
}

/// Examines one upstream by one of its models. If the server does not answer, the other checks are skipped, also in the
/// middle: each then has a verdict that says so, and the second value is true.
pub fn examine(patient: Patient<'_>, on_step: &mut dyn FnMut(Step<'_>)) -> (Vec<Verdict>, bool) {
    let mut examination =
        Examination { patient, upstream: patient.upstream, verdicts: Vec::new(), given_up_at: None, on_step };
    examination.run();
    (examination.verdicts, examination.given_up_at.is_some())
}

struct Examination<'e> {
    patient: Patient<'e>,
    upstream: &'e Upstream,
    verdicts: Vec<Verdict>,
    /// The check whose question had no answer, so that no later one is asked.
    given_up_at: Option<&'static str>,
    on_step: &'e mut dyn FnMut(Step<'_>),
}

impl Examination<'_> {
    fn run(&mut self) {
        if self.upstream.speaks_messages() {
            return reach::passed(self.upstream.config()).into_iter().for_each(|verdict| self.tell(verdict));
        }
        let Some(found) = self.listing() else { return };
        let config = self.upstream.config();
        let Patient { named, model, .. } = self.patient;
        let model = model.map(str::to_string).or_else(|| named.first().cloned());
        let model = model.or_else(|| self.upstream.model());
        self.tell(judge::models(&found, named, model.as_deref()));
        let Some(model) = model else { return };
        let flavour = config.settings.flavour.unwrap_or(found.flavour);
        let server = ServerFacts { flavour, model };
        self.tell(judge::window(config.settings.window.or_else(|| found.window(&server.model)), flavour));
        let names = std::iter::once(&server.model).chain(self.patient.aliases).map(String::as_str);
        self.tell(judge::prompt(&names.collect::<Vec<_>>()));
        let asker = &mut Questioner::new(self.upstream, self.patient.hooks, self.patient.wait, &server.model);
        self.tools(&server, asker);
        let thinks = self.reasoning(&server, asker);
        self.speed(&server, asker);
        self.cache(&server, found.window(&server.model), asker);
        if thinks {
            self.history(&server, asker);
        }
        let calls_well =
            |verdict: &Verdict| verdict.check == calls::AUTO_CALL && verdict.level == Level::Fine;
        if self.verdicts.iter().any(calls_well) {
            self.strict(&server, asker);
        }
        self.repairs(&server, asker);
    }

    fn begin(&mut self, check: &'static str) {
        (self.on_step)(Step::Begin(check));
    }

    /// Begins a check that asks the model. Returns false, and says why, if an earlier check had no answer.
    fn begins(&mut self, check: &'static str, asker: &Questioner<'_>) -> bool {
        if asker.has_given_up() && self.given_up_at.is_none() {
            self.given_up_at = self.verdicts.last().map(|verdict| verdict.check);
        }
        match self.given_up_at {
            Some(earlier) => self.tell(judge::not_asked(check, earlier)),
            None => self.begin(check),
        }
        self.given_up_at.is_none()
    }

    fn tell(&mut self, verdict: Verdict) {
        (self.on_step)(Step::End(&verdict));
        self.verdicts.push(verdict);
    }

    /// The server's models and kind; `None` if it cannot be reached, refuses the key, or does not list its models.
    fn listing(&mut self) -> Option<Arc<Discovered>> {
        self.begin(reach::REACHABLE);
        let result = self.upstream.discover();
        let words = match result {
            Err(Failure::Status(_)) => self.listing_refusal(),
            _ => String::new(),
        };
        let unset = self.patient.hooks.unset_variables().join(", ");
        for mut verdict in reach::reached(self.upstream.config(), &words, &result) {
            // A key that comes from such a variable is left out without a word.
            let lacks_key = verdict.check == reach::KEY && self.upstream.config().api_key.is_none();
            if let Some(fix) = verdict.fix.as_mut().filter(|_| lacks_key && !unset.is_empty()) {
                fix.push_str(&format!(
                    "; variables that the Lua asks for and that are not set here: {unset}"
                ));
            }
            self.tell(verdict);
        }
        result.ok()
    }

    /// The words with which the server refuses to list its models: asked for once more, since discovery keeps only the status.
    fn listing_refusal(&self) -> String {
        const REFUSAL_SIZE_MAX: usize = 64 * 1024;
        let endpoint = self.upstream.endpoint();
        let limits = QuestionLimits { time: endpoint.limits().discovery_timeout, size: REFUSAL_SIZE_MAX };
        let page = endpoint.question(Path::Api("/models"), limits).ok().filter(|page| page.status >= 400);
        let mut words = page.map_or_else(String::new, |mut page| refusal_words(&mut page.body));
        endpoint.hide_keys(&mut words);
        words
    }

    fn tools(&mut self, server: &ServerFacts, asker: &mut Questioner<'_>) {
        let rescues = self.upstream.config().settings.rescue_tool_calls;
        if !self.begins(calls::FORCED_CALL, asker) {
            return;
        }
        let forced = asker.ask(&questions::tool_call(server, "required"), |_| false);
        self.tell(calls::forced_call(
            CallAnswer { answer: &forced, repairs: asker.tried(), rescues },
            server,
        ));
        if !self.begins(calls::AUTO_CALL, asker) {
            return;
        }
        let question = questions::tool_call(server, "auto");
        let auto = asker.ask(&question, |_| false);
        let verdict =
            calls::auto_call(CallAnswer { answer: &auto, repairs: asker.learned(), rescues }, server);
        let dropped = calls::may_be_dropped(&auto, server).then(|| asker.ask_as_text(&question));
        let dropped = dropped.and_then(|answer| {
            calls::dropped_call(CallAnswer { answer: &answer, repairs: &[], rescues }, server)
        });
        self.tell(dropped.unwrap_or(verdict));
    }

    /// Checks whether `strict` has an effect.
    fn strict(&mut self, server: &ServerFacts, asker: &mut Questioner<'_>) {
        let Some((loose, bound)) = questions::strict(server, false).zip(questions::strict(server, true))
        else {
            return;
        };
        if !self.begins(calls::STRICT, asker) {
            return;
        }
        let loose = asker.ask(&loose, |_| false);
        let bound = asker.ask(&bound, |_| false);
        if let Some(verdict) = calls::strict(&loose, &bound, asker.tried()) {
            self.tell(verdict);
        }
    }

    /// Returns true if reasoning arrives in its own field.
    fn reasoning(&mut self, server: &ServerFacts, asker: &mut Questioner<'_>) -> bool {
        if !self.begins(judge::REASONING, asker) {
            return false;
        }
        // One piece of text or reasoning shows where the reasoning goes, so the rest is not read.
        let answer = asker.ask(&questions::thought(server), |answer| {
            !answer.reasoning.is_empty() || judge::has_think_tag(&answer.text)
        });
        self.tell(judge::reasoning(&answer, server));
        answer.is_ok_and(|answer| !answer.reasoning.is_empty())
    }

    /// Checks whether the template keeps earlier reasoning.
    fn history(&mut self, server: &ServerFacts, asker: &mut Questioner<'_>) {
        if !self.begins(judge::HISTORY, asker) {
            return;
        }
        let settings = &self.upstream.config().settings;
        let mut ask = |words| {
            let reasoning = questions::prose("I think", words);
            let question = questions::remembered(server, settings, reasoning)?;
            Some(asker.ask(&question, |_| false))
        };
        let answers = ask(judge::REMEMBERED_WORDS).zip(ask(0));
        if let Some(verdict) = answers.and_then(|(long, short)| judge::kept_reasoning(&long, &short)) {
            self.tell(verdict);
        }
    }

    fn speed(&mut self, server: &ServerFacts, asker: &mut Questioner<'_>) {
        if !self.begins(judge::SPEED, asker) {
            return;
        }
        let answer = asker.ask(&questions::count(server), |_| false);
        self.tell(judge::speed(&answer));
    }

    fn cache(&mut self, server: &ServerFacts, window: Option<u64>, asker: &mut Questioner<'_>) {
        if !self.begins(judge::CACHE, asker) {
            return;
        }
        let tokens = window.map_or(REPEATED_TOKENS, |window| REPEATED_TOKENS.min(window / 2));
        let before = self.counter(CACHE_HITS);
        let mut round = || {
            let question = questions::long(server, &ids::request_id(), tokens, FIRST_TOKEN);
            (asker.ask(&question, |_| false), asker.ask(&question, |_| false))
        };
        let mut rounds = vec![round()];
        // A new prompt finds nothing, so the growth of the counter is that of the repeated one.
        let hits = before.zip(self.counter(CACHE_HITS)).map(|(before, after)| after - before);
        if let Some((first, second)) = rounds.first()
            && judge::needs_rounds(first, second, hits)
        {
            rounds.extend((1..judge::CACHE_ROUNDS).map(|_| round()));
        }
        let auto_mode = self.upstream.config().auto_mode;
        if let Some(verdict) = rounds.first().and_then(|(first, _)| judge::auto_mode(first, auto_mode)) {
            self.tell(verdict);
        }
        let full = judge::full_cache(self.counter(INTERRUPTED));
        for verdict in judge::cache(&rounds, hits, server).into_iter().chain(full) {
            self.tell(verdict);
        }
    }

    /// Asks for all that servers are known to refuse, and tells which of it requests lose silently.
    fn repairs(&mut self, server: &ServerFacts, asker: &mut Questioner<'_>) {
        if !self.begins(judge::REPAIRS, asker) {
            return;
        }
        let settings = self.upstream.config().settings.clone();
        let (mut known, mut refused): (Vec<Repair>, Vec<_>) = Default::default();
        for question in questions::refusable(server, &settings) {
            let of_name = asker.known_for(&question);
            known.extend(of_name.into_iter().filter(|repair| !known.contains(repair)).collect::<Vec<_>>());
            let asked = asker.ask(&question, |_| false);
            let asked = asked.and_then(|answer| match answer.is_nothing() {
                true => Err(Trouble::Broken("the answer is empty".into())),
                false => Ok(answer),
            });
            if let Err(trouble) = asked {
                refused.push((trouble, asker.tried().to_vec()));
            }
            if asker.has_given_up() {
                break;
            }
        }
        self.tell(judge::repairs(asker.learned(), &known, &refused));
    }

    /// A counter of vLLM. Only vLLM reports them without a flag.
    fn counter(&self, name: &str) -> Option<f64> {
        const METRICS_SIZE_MAX: usize = 1024 * 1024;
        let endpoint = self.upstream.endpoint();
        let limits = QuestionLimits { time: endpoint.limits().discovery_timeout, size: METRICS_SIZE_MAX };
        let page = endpoint.question(Path::Root("/metrics"), limits).ok()?;
        (page.status == 200).then(|| judge::counter(&String::from_utf8_lossy(&page.body), name))?
    }
}
