//! The upstreams, aliases and hooks in use: one immutable set, replaced as a whole.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{self, Config};
use crate::dialect::ServerKind;
use crate::error::{Error, Kind, Retry};
use crate::hooks::{Hooks, Loaded};
use crate::openai::{Counts, Repair};
use crate::route::{self, Alias};
use crate::settings::Settings;
use crate::shown::ShownText;
use crate::translate::{Asked, CountedPrompt, Lessons, Target, ToldWindow};
use crate::transport::{CallLimits, Failure, Wait};

use super::discovery::Discovered;
use super::learned::{Learned, is_same_window};
use super::queue::{NoSlot, Queue, QueueSlot};
use super::upstream::Upstream;

/// The prefix in our listing of every alias or model whose name contains neither `claude` nor `anthropic`: Claude Code
/// shows no other names.
pub const LISTING_PREFIX: &str = "anthropic/";

/// The estimated tokens from which on a count of less than half the estimate cannot be an error of the estimate.
const CUT_PROMPT_MIN: u64 = 2000;

/// The most kinds of dropped request parts that are warned about.
const WARNINGS_MAX: usize = 100;

/// The longest text of a kind that is remembered and shown, in characters.
const WARNED_LENGTH_MAX: usize = 100;

/// An upstream, and the facts learned about it.
#[derive(Debug)]
pub struct Served {
    upstream: Upstream,
    learned: Mutex<Learned>,
    /// `None`: the number of requests at a time is not limited.
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

    /// True if the upstream serves a model of this name. The name may have our listing's prefix.
    fn lists(&self, model: &str) -> bool {
        let bare = model.strip_prefix(LISTING_PREFIX).unwrap_or(model);
        let discovered = self.upstream.discovered();
        discovered.find(model).is_some() || discovered.find(bare).is_some()
    }

    /// A slot among the requests that the upstream gets at a time, at once or when it is this client's turn. `None`:
    /// the upstream has no queue.
    ///
    /// # Errors
    /// Those of [`Queue::take`].
    pub fn slot(&self, wait: &Rc<dyn Wait>) -> Result<Option<QueueSlot>, NoSlot> {
        self.queue.as_ref().map(|queue| queue.take(wait)).transpose()
    }

    /// The learned facts; those about an earlier server are forgotten first.
    fn learned(&self) -> MutexGuard<'_, Learned> {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        learned.follow(self.upstream.generation());
        learned
    }

    /// The repairs that requests for the model need: those that its name tells, and those that were learned.
    fn repairs(&self, model: &str) -> Vec<Repair> {
        let mut repairs = Repair::known(model);
        repairs.extend(self.learned().repairs(model, Instant::now()));
        repairs.sort_by_key(Repair::rank);
        repairs
    }

    /// The count of the question with this hash, if the server has counted it before.
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
    /// The kinds of dropped request parts that were already warned about.
    warned: Mutex<HashSet<String>>,
}

/// The destination of a request, and the facts that are known about it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The upstream.
    pub served: Arc<Served>,
    /// The model's name at the upstream.
    pub model: String,
    /// The server's flavour.
    pub flavour: ServerKind,
    /// The model's context window in tokens, if the owner set it or the server lists it.
    listed_window: Option<u64>,
    /// The facts that answers and refusals have shown about the model.
    lessons: Lessons,
    /// The operator's settings, without the features that the model has refused.
    pub settings: Settings,
    /// The changes that requests for this model need, in the order in which they are made.
    pub repairs: Vec<Repair>,
    /// The generation of the server that these facts are about.
    generation: u64,
    /// The listing from which these facts come.
    discovered: Arc<Discovered>,
    /// The name that the request asks for.
    requested: String,
    /// The name that an alias or a hook gives the model, whatever the upstream lists.
    named: Option<String>,
}

impl Resolved {
    /// The facts that are known now about a request for `requested` at this upstream. `named` is the model's name by an
    /// alias or a hook; otherwise the model is the requested one if it is served there, otherwise the upstream's own.
    fn of(served: &Arc<Served>, requested: &str, named: Option<&str>) -> Resolved {
        let upstream = served.upstream();
        let discovered = upstream.discovered();
        // Read before the learned facts: if the server changes from here on, the answer's facts are found to be of an
        // older generation.
        let generation = upstream.generation();
        let bare = requested.strip_prefix(LISTING_PREFIX).unwrap_or(requested);
        let plain = route::without_window_mark(bare);
        let listed = [requested, bare, plain].into_iter().find(|name| discovered.find(name).is_some());
        let model = named.or(listed).map(str::to_string).or_else(|| upstream.model());
        let model = model.unwrap_or_else(|| requested.to_string());
        // Outside the expression below, which would hold the lock while `settings` takes it.
        let lessons = served.learned().lessons(&model, Instant::now());
        let repairs = served.repairs(&model);
        let mut settings = upstream.config().settings.clone();
        // The translation has better words for an image than a repair of the finished body.
        settings.vision &= !repairs.contains(&Repair::NoImages);
        Resolved {
            flavour: settings.flavour.unwrap_or(discovered.flavour),
            listed_window: settings.window.or_else(|| discovered.window(&model)),
            lessons,
            settings,
            repairs,
            served: Arc::clone(served),
            model,
            generation,
            discovered,
            requested: requested.to_string(),
            named: named.map(str::to_string),
        }
    }

    /// The same request by the facts that are known now, at the same upstream. `None`: they are the same.
    pub fn renewed(&self) -> Option<Resolved> {
        let is_same = Arc::ptr_eq(&self.served.upstream.discovered(), &self.discovered);
        (!is_same).then(|| Resolved::of(&self.served, &self.requested, self.named.as_deref()))
    }

    /// True if a listing may name another model for this request: neither an alias nor a hook names one.
    pub fn follows_listing(&self) -> bool {
        self.named.is_none()
    }

    /// True if this is the given model of the given upstream.
    pub fn is(&self, served: &Arc<Served>, model: &str) -> bool {
        Arc::ptr_eq(&self.served, served) && self.model == model
    }

    /// The model's context window in tokens, if it is set, listed, or named by a refusal.
    pub fn window(&self) -> Option<u64> {
        self.listed_window.or(self.lessons.window.map(|told| told.tokens))
    }

    /// The facts that the translation needs.
    pub fn target(&self) -> Target<'_> {
        Target {
            model: &self.model,
            flavour: self.flavour,
            window: self.listed_window,
            lessons: self.lessons,
            settings: &self.settings,
        }
    }

    /// The learned facts, to be added to. `None`: another server runs now, so an answer of the earlier one says nothing
    /// about it.
    fn learned(&self) -> Option<MutexGuard<'_, Learned>> {
        (self.served.upstream.generation() == self.generation).then(|| self.served.learned())
    }

    /// Notes that a request needed this repair. From now on it is made at once, since otherwise every request would be
    /// sent twice. The log says so once.
    pub fn learn_repair(&self, repair: &Repair) {
        let learned = self.learned();
        let is_news =
            learned.is_some_and(|mut learned| learned.learn_repair(&self.model, repair, Instant::now()));
        if is_news {
            log::warn!("upstream {}: {} {repair}", self.served.name(), ShownText::new(&self.model));
        }
    }

    /// Notes the context window that a refusal named. If it differs from the known one, the server is asked for its
    /// models again.
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

    /// Notes the server's count for the question with this hash.
    pub fn learn_count(&self, question: u64, count: u64) {
        if let Some(mut learned) = self.learned() {
            learned.learn_count(question, count, Instant::now());
        }
    }

    /// The new tokens of a prompt that the model reads in a second, if its answers have shown it.
    pub fn prefill(&self) -> Option<u64> {
        self.served.learned().prefill(&self.model, Instant::now())
    }

    /// Learns from the number of prompt tokens in an answer. `asked` describes its request, and `prompt_time` is the time
    /// from that request to the first content.
    pub fn learn_answer(&self, counts: Counts, asked: &Asked, prompt_time: Option<Duration>) {
        let Some(mut learned) = self.learned().filter(|_| counts.prompt > 0) else { return };
        let now = Instant::now();
        if let Some(time) = prompt_time {
            learned.learn_prefill(&self.model, counts.prompt.saturating_sub(counts.cached), time, now);
        }
        let total = counts.prompt.saturating_add(counts.completion);
        let is_set = self.settings.window.is_some();
        let is_over = !is_set && asked.window.is_some_and(|window| total > window);
        let is_cut = asked.is_clamped_to_window && counts.completion >= asked.max_tokens;
        if is_over {
            // The window is larger than the listing or a refusal said.
            self.served.upstream.mark_stale();
        }
        if is_over || is_cut {
            learned.forget_window(&self.model, now);
        }
        let may_cut = self.flavour.dialect().cuts_prompts && asked.estimate.text >= CUT_PROMPT_MIN;
        let answer = CountedPrompt::new(asked.estimate, counts.prompt);
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
    /// A gateway made from a loaded configuration. No connection is made yet.
    ///
    /// # Errors
    /// An upstream's URL or key cannot be used.
    pub fn new(loaded: Loaded, options: &CallLimits) -> Result<Self, String> {
        Gateway::after(None, loaded, options)
    }

    /// A gateway that replaces another one. An upstream whose configuration did not change is kept, with its
    /// connections, its queue, and the facts learned about it, except for repairs.
    ///
    /// # Errors
    /// Those of [`Gateway::new`].
    pub fn after(old: Option<&Gateway>, loaded: Loaded, options: &CallLimits) -> Result<Self, String> {
        let Loaded { hooks, config: Config { upstreams, aliases } } = loaded;
        let serve = |config: config::UpstreamConfig| {
            let same = old.and_then(|old| old.upstream(&config.name));
            if let Some(same) = same.filter(|same| *same.upstream.config() == config) {
                // An operator who changed the model server tells so by a reload.
                same.learned().forget_repairs();
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

    /// Warns about something in a request, once for each kind, since clients repeat it with every request. The kinds
    /// may be text from clients, so they are cut, and the number that is remembered is limited.
    pub fn warn_once(&self, what: &str, kind: &str) {
        let kind: String = kind.chars().take(WARNED_LENGTH_MAX).collect();
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.len() < WARNINGS_MAX && !warned.contains(&kind) {
            log::warn!("{what}: {}", ShownText::new(&kind));
            warned.insert(kind);
        }
    }

    /// The upstream with this configured name.
    pub fn upstream(&self, name: &str) -> Option<&Arc<Served>> {
        self.upstreams.iter().find(|served| served.name() == name)
    }

    /// The name that the alias table looks up for `model`. The listing's prefix is removed, unless an alias begins with
    /// it, or only the whole name has an alias.
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

    /// The upstream for a request for `model`, and the model that its alias names. `chosen` is the upstream that a hook
    /// named, and `own_model` the model that the hook named with it; then the alias table only renames.
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
            // Neither a hook nor an alias names an upstream, so an upstream that lists the model is used, otherwise the
            // default.
            None => {
                let sought = alias.and_then(|alias| alias.model.as_deref()).unwrap_or(model);
                let names = [sought, route::without_window_mark(sought)];
                let lists = |served: &&Arc<Served>| names.iter().any(|name| served.lists(name));
                self.upstreams.iter().find(lists).or(self.upstreams.first())
            }
        };
        let Some(served) = served else {
            return Err(Error::new(Kind::NotFound, format!("model: {model}")).retry(Retry::Never));
        };
        // For a hook's upstream, only an alias that leads to the same upstream may rename.
        let default = self.upstreams.first().map(|served| served.name());
        let alias = alias
            .filter(|alias| chosen.is_none() || alias.upstream.as_deref().or(default) == Some(served.name()));
        // A hook that names both upstream and model means that model: only an alias with exactly its name renames it.
        let alias = alias.filter(|alias| own_model.is_none_or(|own| alias.pattern == own));
        Ok((served, alias.and_then(|alias| alias.model.as_deref())))
    }

    /// The destination of a request: the upstream that a hook chose or the alias table names. There the model is the
    /// alias's; otherwise the one that the hook named (`own_model`); otherwise the requested one if it is served there;
    /// otherwise the upstream's own. Nothing is asked: only known facts are used, see [`Gateway::refresh`].
    ///
    /// # Errors
    /// 404: no alias matches.
    pub fn resolve(
        &self,
        requested: &str,
        chosen: Option<&str>,
        own_model: Option<&str>,
    ) -> Result<Resolved, Error> {
        let (served, alias_model) = self.route(requested, chosen, own_model)?;
        Ok(Resolved::of(served, requested, alias_model.or(own_model)))
    }

    /// Renews the facts that [`Gateway::resolve`] needs for a request, where that is due, and waits where they may be
    /// wrong: for the upstream that the request goes to, and if no upstream is named and none lists the model, for
    /// those whose first listing has not come yet.
    ///
    /// # Errors
    /// [`Failure::ClientGone`].
    pub fn refresh(&self, requested: &str, chosen: Option<&str>, wait: &Rc<dyn Wait>) -> Result<(), Failure> {
        let Ok((served, _)) = self.route(requested, chosen, None) else { return Ok(()) };
        served.upstream.notice_closed();
        let is_named =
            chosen.is_some() || self.alias(requested).is_some_and(|alias| alias.upstream.is_some());
        if is_named || self.upstreams.len() == 1 || served.lists(requested) {
            return served.upstream.refresh(wait);
        }
        let others = self.upstreams.iter().filter(|other| other.upstream.is_unasked());
        refresh_together(std::iter::once(served).chain(others), wait)
    }

    /// Renews the facts about all upstreams, as [`Gateway::refresh`] does for one, at the same time.
    ///
    /// # Errors
    /// [`Failure::ClientGone`].
    pub fn refresh_all(&self, wait: &Rc<dyn Wait>) -> Result<(), Failure> {
        self.upstreams.iter().for_each(|served| served.upstream.notice_closed());
        refresh_together(self.upstreams.iter(), wait)
    }

    /// Has the facts about all upstreams asked for in the background where that is due.
    pub fn refresh_in_background(&self) {
        self.upstreams.iter().for_each(|served| _ = served.upstream.renew());
    }
}

/// Begins all questions that are due, then waits for them, so that the slowest one decides the time.
fn refresh_together<'s>(
    upstreams: impl Iterator<Item = &'s Arc<Served>> + Clone,
    wait: &Rc<dyn Wait>,
) -> Result<(), Failure> {
    let began = Instant::now();
    upstreams.clone().for_each(|served| _ = served.upstream.renew());
    upstreams.map(|served| &served.upstream).try_for_each(|upstream| upstream.await_facts(wait, began))
}
