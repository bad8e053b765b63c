//! The upstreams, aliases and hooks in force: one immutable set, swapped as a whole.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::config::{self, Config};
use crate::dialect::ServerKind as Flavour;
use crate::error::{Error, Kind, Retry};
use crate::hooks::{Hooks, Loaded};
use crate::openai::Counts;
use crate::route::{self, Alias};
use crate::settings::Settings;
use crate::translate::{Answer, Asked, Lessons, Target, ToldWindow};
use crate::transport::{CallLimits, Wait};

use super::learned::{Learned, Refused, is_same_window};
use super::queue::{NoSlot, Queue, QueueSlot};
use super::upstream::Upstream;

/// Stands before names in our listing, aliases' and models', that hold neither `claude` nor `anthropic`: Claude Code shows
/// no others.
pub const LISTING_PREFIX: &str = "anthropic/";

/// From so many tokens on a count of less than half the estimate is no error of the estimate.
const CUT_PROMPT_MIN: u64 = 2000;

/// How many kinds of left out things are warned of.
const WARNINGS_MAX: usize = 100;

/// How much of a kind is remembered and shown, in characters.
const WARNED_LENGTH_MAX: usize = 100;

/// An upstream, and what was learned of it.
#[derive(Debug)]
pub struct Served {
    upstream: Upstream,
    learned: Mutex<Learned>,
    /// `None`: as many at a time as come.
    queue: Option<Arc<Queue>>,
}

impl Served {
    /// Its configured name.
    pub fn name(&self) -> &str {
        self.upstream.name()
    }

    /// The upstream itself.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Whether it serves a model of this name, also in the listing's own spelling of it.
    fn lists(&self, model: &str) -> bool {
        let bare = model.strip_prefix(LISTING_PREFIX).unwrap_or(model);
        self.upstream.discovered().models.iter().any(|listed| listed.id == model || listed.id == bare)
    }

    /// A slot among the requests that it gets at a time, at once or when it is this client's turn. `None`: it has no
    /// queue.
    ///
    /// # Errors
    /// As [`Queue::take`].
    pub fn slot(&self, wait: &Rc<dyn Wait>) -> Result<Option<QueueSlot>, NoSlot> {
        self.queue.as_ref().map(|queue| queue.take(wait)).transpose()
    }

    /// What was learned, as far as it is of the server that is there now.
    fn learned(&self) -> MutexGuard<'_, Learned> {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        learned.follow(self.upstream.generation());
        learned
    }

    /// What the owner set, less what the model has refused.
    fn settings(&self, model: &str) -> Settings {
        let mut settings = self.upstream.config().settings.clone();
        let (mut learned, now) = (self.learned(), Instant::now());
        settings.vision &= !learned.has_refused(model, Refused::Image, now);
        if learned.has_refused(model, Refused::ThinkingBudget, now) {
            settings.thinking_budget = Some(false);
        }
        settings
    }

    /// The count of the question with this hash, where the server counted it before.
    pub fn count(&self, question: u64) -> Option<u64> {
        self.learned().count(question, Instant::now())
    }
}

/// One set of upstreams, aliases and hooks.
#[derive(Debug)]
pub struct Gateway {
    upstreams: Vec<Arc<Served>>,
    aliases: Vec<Alias>,
    hooks: Hooks,
    /// What was left out of requests, and said so.
    warned: Mutex<HashSet<String>>,
}

/// Where a request goes, and what is known of it there.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The upstream.
    pub served: Arc<Served>,
    /// The model's name there.
    pub model: String,
    /// The server's flavour.
    pub flavour: Flavour,
    /// The model's context window in tokens, where the owner set or the server lists it.
    listed_window: Option<u64>,
    /// What answers and refusals told of the model.
    lessons: Lessons,
    /// What the owner set, and what was learned since.
    pub settings: Settings,
    /// The generation of the server that this was found out of.
    generation: u64,
}

impl Resolved {
    /// Whether it is this model of this upstream.
    pub fn is(&self, served: &Arc<Served>, model: &str) -> bool {
        Arc::ptr_eq(&self.served, served) && self.model == model
    }

    /// The model's context window in tokens, where known: as set, as listed, or as a refusal told.
    pub fn window(&self) -> Option<u64> {
        self.listed_window.or(self.lessons.window.map(|told| told.tokens))
    }

    /// What the translation must know of it.
    pub fn target(&self) -> Target<'_> {
        Target {
            model: &self.model,
            flavour: self.flavour,
            window: self.listed_window,
            lessons: self.lessons,
            settings: &self.settings,
        }
    }

    /// What is learned goes here. `None`: the server that answered is not there any more, and its answer tells nothing of
    /// the one that is.
    fn learned(&self) -> Option<MutexGuard<'_, Learned>> {
        (self.served.upstream.generation() == self.generation).then(|| self.served.learned())
    }

    /// The model refused something: from now on it is not sent that, else every request would be asked twice.
    pub fn learn_refusal(&self, what: Refused) {
        let is_news = self
            .learned()
            .is_some_and(|mut learned| learned.learn_refusal(&self.model, what, Instant::now()));
        if !is_news {
            return;
        }
        let (name, model) = (self.served.name(), &self.model);
        match what {
            Refused::Image => {
                log::warn!("upstream {name}: {model} takes no images; they are replaced by a line of text");
            }
            Refused::ThinkingBudget => {
                log::warn!("upstream {name}: {model} takes no thinking budget; it is left out");
            }
        }
    }

    /// A refusal named the context window of the model. Where that is another one than was known, the server is asked for
    /// its models again.
    pub fn learn_window(&self, window: ToldWindow) {
        if window.tokens == 0 {
            return; // a miscount
        }
        let known = self.window();
        if let Some(mut learned) = self.learned() {
            learned.learn_window(&self.model, window, known, Instant::now());
        }
        if known.is_some_and(|known| !is_same_window(known, window.tokens)) {
            self.served.upstream.mark_stale();
        }
    }

    /// The server counted the question with this hash.
    pub fn learn_count(&self, question: u64, count: u64) {
        if let Some(mut learned) = self.learned() {
            learned.learn_count(question, count, Instant::now());
        }
    }

    /// Learns from an answer: the tokens that the upstream counted of what was asked.
    pub fn learn_answer(&self, counts: Counts, asked: &Asked) {
        let Some(mut learned) = self.learned().filter(|_| counts.prompt > 0) else { return };
        let now = Instant::now();
        let total = counts.prompt.saturating_add(counts.completion);
        let is_set = self.settings.window.is_some();
        let is_over = !is_set && asked.window.is_some_and(|window| total > window);
        let is_cut = asked.is_clamped_to_window && counts.completion >= asked.max_tokens;
        if is_over {
            // The window is larger than it was listed, or than a refusal told.
            self.served.upstream.mark_stale();
        }
        if is_over || is_cut {
            learned.forget_window(&self.model, now);
        }
        let may_cut = self.flavour == Flavour::Ollama && asked.estimate.text >= CUT_PROMPT_MIN;
        let answer = Answer::new(asked.estimate, counts.prompt);
        let is_taken = answer.is_some_and(|answer| learned.learn_answer(&self.model, answer, may_cut, now));
        let is_short = counts.prompt < asked.estimate.text / 4 * 3;
        if may_cut && !is_taken && is_short && asked.estimate.images == 0 && learned.is_first_cut_prompt() {
            log::warn!(
                "upstream {}: {} read {} of about {} tokens: Ollama cuts what its window does not hold; \
                 set OLLAMA_CONTEXT_LENGTH there, and `window` to the same here",
                self.served.name(),
                self.model,
                counts.prompt,
                asked.prompt_tokens
            );
        }
    }
}

impl Gateway {
    /// A gateway of what was loaded. No connection is made yet.
    ///
    /// # Errors
    /// An upstream's URL or key cannot be used.
    pub fn new(loaded: Loaded, options: &CallLimits) -> Result<Self, String> {
        Gateway::after(None, loaded, options)
    }

    /// The same, as the successor of another one: an upstream that is configured as before stays the same, its
    /// connections, its queue, and what was learned of it included.
    ///
    /// # Errors
    /// As [`Gateway::new`].
    pub fn after(old: Option<&Gateway>, loaded: Loaded, options: &CallLimits) -> Result<Self, String> {
        let Loaded { hooks, config: Config { upstreams, aliases } } = loaded;
        let serve = |config: config::Upstream| {
            let same = old.and_then(|old| old.upstream(&config.name));
            if let Some(same) = same.filter(|same| *same.upstream.config() == config) {
                return Ok(Arc::clone(same));
            }
            let upstream = Upstream::new(config, options)?;
            let queue = upstream.config().max_in_flight.map(|places| Arc::new(Queue::new(places)));
            Ok(Arc::new(Served { upstream, learned: Mutex::default(), queue }))
        };
        let upstreams = upstreams.into_iter().map(serve).collect::<Result<Vec<_>, String>>()?;
        Ok(Gateway { upstreams, aliases, hooks, warned: Mutex::default() })
    }

    /// The upstreams, the default one first.
    pub fn upstreams(&self) -> &[Arc<Served>] {
        &self.upstreams
    }

    /// The alias table.
    pub fn aliases(&self) -> &[Alias] {
        &self.aliases
    }

    /// The hooks.
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// Warns of something in a request: once for each kind, since clients repeat it with every request. The kinds may be
    /// the clients' words, so they are cut, and only so many are remembered.
    pub fn warn_once(&self, what: &str, kind: &str) {
        let kind: String = kind.chars().take(WARNED_LENGTH_MAX).collect();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() < WARNINGS_MAX && !warned.contains(&kind) {
            log::warn!("{what}: {}", kind.escape_debug());
            warned.insert(kind);
        }
    }

    /// The upstream of that name.
    pub fn upstream(&self, name: &str) -> Option<&Arc<Served>> {
        self.upstreams.iter().find(|served| served.name() == name)
    }

    /// The name that the alias table looks up for `model`: behind the listing's prefix the bare name, unless an alias begins
    /// so, or only the whole name has an alias.
    pub fn requested<'m>(&self, model: &'m str) -> &'m str {
        let Some(bare) = model.strip_prefix(LISTING_PREFIX) else { return model };
        let is_whole = match route::find(&self.aliases, model) {
            None => false,
            Some(alias) if alias.pattern.starts_with(LISTING_PREFIX) => true,
            Some(_) => route::find(&self.aliases, bare).is_none(),
        };
        if is_whole { model } else { bare }
    }

    /// The alias that `model` stands for.
    fn alias(&self, model: &str) -> Option<&Alias> {
        route::find(&self.aliases, self.requested(model))
    }

    /// The upstream that a request for `model` goes to, and the model that its alias names. `chosen`: the upstream that
    /// a hook named, `own_model` the model that it named beside it; the alias table then only renames.
    fn route(
        &self,
        model: &str,
        chosen: Option<&str>,
        own_model: Option<&str>,
    ) -> Result<(&Arc<Served>, Option<&str>), Error> {
        let alias = self.alias(model);
        let served = match chosen.or(alias.and_then(|alias| alias.upstream.as_deref())) {
            Some(name) => self.upstream(name),
            None if alias.is_none() && !self.aliases.is_empty() => None,
            // Nobody says where to: to an upstream that lists the model, else to the default one.
            None => {
                let sought = alias.and_then(|alias| alias.model.as_deref()).unwrap_or(model);
                self.upstreams.iter().find(|served| served.lists(sought)).or(self.upstreams.first())
            }
        };
        let Some(served) = served else {
            return Err(Error::new(Kind::NotFound, format!("model: {model}")).retry(Retry::Never));
        };
        // The table renames for a hook's upstream only what it would send there itself.
        let default = self.upstreams.first().map(|served| served.name());
        let alias = alias
            .filter(|alias| chosen.is_none() || alias.upstream.as_deref().or(default) == Some(served.name()));
        // A hook that names upstream and model means that model: only an alias of its very name renames it.
        let alias = alias.filter(|alias| own_model.is_none_or(|own| alias.pattern == own));
        Ok((served, alias.and_then(|alias| alias.model.as_deref())))
    }

    /// Where a request goes: the upstream that a hook chose or the alias table names; there the alias's model, else the
    /// one that the hook named (`own_model`), else the requested one if it is served there, else the upstream's own.
    /// Without a `wait` only what is known counts, and no upstream is asked.
    ///
    /// # Errors
    /// 404 where no alias matches.
    pub fn resolve(
        &self,
        requested: &str,
        chosen: Option<&str>,
        own_model: Option<&str>,
        wait: Option<&Rc<dyn Wait>>,
    ) -> Result<Resolved, Error> {
        let (served, alias_model) = self.route(requested, chosen, own_model)?;
        let upstream = served.upstream();
        let discovered = match wait {
            Some(wait) => upstream.discovered_fresh(wait),
            None => upstream.discovered(),
        };
        // Before anything learned is looked at: what changes from here on is noticed when the answer is to teach.
        let generation = upstream.generation();
        let bare = requested.strip_prefix(LISTING_PREFIX).unwrap_or(requested);
        let is_served = |name: &&str| discovered.models.iter().any(|model| model.id == *name);
        let listed = [requested, bare].into_iter().find(is_served);
        let model = alias_model.or(own_model).or(listed).map(str::to_string).or_else(|| upstream.model());
        let model = model.unwrap_or_else(|| requested.to_string());
        // Not within the expression below: there the lock would be held while the settings want it.
        let lessons = served.learned().lessons(&model, Instant::now());
        let settings = &upstream.config().settings;
        Ok(Resolved {
            flavour: settings.flavour.unwrap_or(discovered.flavour),
            listed_window: settings.window.or_else(|| discovered.window(&model)),
            lessons,
            settings: served.settings(&model),
            served: Arc::clone(served),
            model,
            generation,
        })
    }
}
