//! The upstreams, aliases and hooks in force: one immutable set, swapped as a whole.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{self, Config};
use crate::dialect::ServerKind as Flavour;
use crate::error::{Error, Kind, Retry};
use crate::hooks::{Hooks, Loaded};
use crate::openai::Counts;
use crate::route::{self, Alias};
use crate::settings::Settings;
use crate::transport::{CallLimits, Wait};

use super::queue::{NoSlot, Queue, QueueSlot};
use super::upstream::Upstream;

/// Stands before names in our listing, aliases' and models', that hold neither `claude` nor `anthropic`: Claude Code shows
/// no others.
pub const LISTING_PREFIX: &str = "anthropic/";

/// How much one answer moves what is learned of a model's tokens.
const LEARNING_RATE: f64 = 0.2;

/// From so many tokens on a count of less than half the estimate is no error of the estimate.
const CUT_PROMPT_MIN: u64 = 2000;

/// A ratio outside this range is a miscount, not a tokenizer.
const RATIO_RANGE: (f64, f64) = (0.3, 3.0);

/// How many kinds of left out things are warned of.
const WARNINGS_MAX: usize = 100;

/// How many models of an upstream anything is learned of.
const MODELS_MAX: usize = 1000;

/// An upstream, and what was learned of it.
#[derive(Debug)]
pub struct Served {
    upstream: Upstream,
    /// Real tokens to estimated ones, by model.
    ratios: Mutex<HashMap<String, f64>>,
    /// Context windows that only an error told, by model.
    windows: Mutex<HashMap<String, u64>>,
    /// Models that refused an image.
    blind: Refusals,
    /// Models that refused a thinking budget.
    budgetless: Refusals,
    /// Whether it was seen to cut a prompt, and that was said.
    cuts_prompts: AtomicBool,
    /// `None`: as many at a time as come.
    queue: Option<Arc<Queue>>,
}

/// Models that refused something, by name.
#[derive(Debug, Default)]
struct Refusals(Mutex<HashSet<String>>);

impl Refusals {
    fn contains(&self, model: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(model)
    }

    /// Whether it is the model's first refusal.
    fn insert(&self, model: &str) -> bool {
        let mut models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if models.len() >= MODELS_MAX {
            models.clear(); // as with the ratios
        }
        models.insert(model.to_string())
    }
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

    /// Real tokens to estimated ones; 1 until there was an answer.
    pub fn tokens_ratio(&self, model: &str) -> f64 {
        let ratios = self.ratios.lock().unwrap_or_else(PoisonError::into_inner);
        ratios.get(model).copied().unwrap_or(1.0)
    }

    /// What the owner set, less what the model has refused.
    fn settings(&self, model: &str) -> Settings {
        let mut settings = self.upstream.config().settings.clone();
        settings.vision &= !self.blind.contains(model);
        if self.budgetless.contains(model) {
            settings.thinking_budget = Some(false);
        }
        settings
    }

    /// The model refused an image: from now on it gets a line of text instead.
    pub fn learn_no_vision(&self, model: &str) {
        if self.blind.insert(model) {
            log::warn!(
                "upstream {}: {model} takes no images; they are replaced by a line of text",
                self.name()
            );
        }
    }

    /// The model refused a thinking budget: from now on it gets none, else every request would be asked twice.
    pub fn learn_no_thinking_budget(&self, model: &str) {
        if self.budgetless.insert(model) {
            log::warn!("upstream {}: {model} takes no thinking budget; it is left out", self.name());
        }
    }

    /// An error named the context window of the model.
    pub fn learn_window(&self, model: &str, window: u64) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= MODELS_MAX {
            windows.clear();
        }
        windows.insert(model.to_string(), window);
    }

    /// The context window that an error named, where the listing tells none.
    fn learned_window(&self, model: &str) -> Option<u64> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).get(model).copied()
    }

    /// Ollama cuts a prompt that its window does not hold, and tells nobody but by its count.
    fn warn_of_cut_prompt(&self, model: &str, told: u64, estimate: u64) {
        if !self.cuts_prompts.swap(true, Ordering::Relaxed) {
            log::warn!(
                "upstream {}: {model} read {told} of about {estimate} tokens: Ollama cuts what its window does not hold; \
                 set OLLAMA_CONTEXT_LENGTH there, and `window` to the same here",
                self.name()
            );
        }
    }

    /// Learns from an answer: the tokens told, and the estimate that the request went out with.
    pub fn learn(&self, model: &str, flavour: Flavour, counts: Counts, estimate: u64) {
        if counts.prompt == 0 || estimate == 0 {
            return;
        }
        if flavour.dialect().cuts_prompts && estimate >= CUT_PROMPT_MIN && counts.prompt < estimate / 2 {
            return self.warn_of_cut_prompt(model, counts.prompt, estimate);
        }
        let mut ratios = self.ratios.lock().unwrap_or_else(PoisonError::into_inner);
        if ratios.len() >= MODELS_MAX {
            ratios.clear(); // names that clients made up; what is lost is learned again
        }
        let old = ratios.get(model).copied();
        #[allow(clippy::cast_precision_loss, reason = "token counts are far below 2^53")]
        let seen = counts.prompt as f64 / estimate as f64 * old.unwrap_or(1.0);
        let new = old.map_or(seen, |old| old + LEARNING_RATE * (seen - old));
        ratios.insert(model.to_string(), new.clamp(RATIO_RANGE.0, RATIO_RANGE.1));
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
    /// The model's context window in tokens, where known.
    pub window: Option<u64>,
    /// What the owner set, and what was learned since.
    pub settings: Settings,
}

impl Resolved {
    /// Whether it is this model of this upstream.
    pub fn is(&self, served: &Arc<Served>, model: &str) -> bool {
        Arc::ptr_eq(&self.served, served) && self.model == model
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
            Ok(Arc::new(Served {
                upstream,
                ratios: Mutex::default(),
                windows: Mutex::default(),
                blind: Refusals::default(),
                budgetless: Refusals::default(),
                cuts_prompts: AtomicBool::new(false),
                queue,
            }))
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

    /// Says that something of a request was left out: once for each kind, since clients repeat it with every request.
    pub fn warn_once(&self, dropped: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        // The kinds are the clients' words: so many, and no more.
        if warned.len() < WARNINGS_MAX && warned.insert(dropped.to_string()) {
            log::warn!("left out, as no upstream has a place for it: {}", dropped.escape_debug());
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
        let bare = requested.strip_prefix(LISTING_PREFIX).unwrap_or(requested);
        let is_served = |name: &&str| discovered.models.iter().any(|model| model.id == *name);
        let listed = [requested, bare].into_iter().find(is_served);
        let model = alias_model.or(own_model).or(listed).map(str::to_string).or_else(|| upstream.model());
        let model = model.unwrap_or_else(|| requested.to_string());
        let settings = &upstream.config().settings;
        Ok(Resolved {
            flavour: settings.flavour.unwrap_or(discovered.flavour),
            window: settings
                .window
                .or_else(|| discovered.window(&model))
                .or_else(|| served.learned_window(&model)),
            settings: served.settings(&model),
            served: Arc::clone(served),
            model,
        })
    }
}
