//! The upstreams, aliases and hooks in use: one immutable set, replaced as a whole.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{self, ClientLimits, Config, SearchConfig, UpstreamProtocol};
use crate::dialect::ServerKind;
use crate::error::{Error, Kind, Retry};
use crate::hash::Fnv;
use crate::hooks::{Hook, Hooks, Loaded};
use crate::openai::{Counts, Repair};
use crate::policy::NeverTo;
use crate::route::{self, Alias, AliasMember};
use crate::settings::Settings;
use crate::shown::ShownText;
use crate::threads;
use crate::translate::{Asked, CountedPrompt, Lessons, Target, ToldWindow};
use crate::transport::{CallLimits, Failure, Wait};

use super::conversations::BoxId;
use super::discovery::Discovered;
use super::health::{HealthState, StateChange};
use super::learned::{Learned, is_same_window};
use super::learned_text::SaveTime;
use super::load_watch::LoadWatch;
use super::news::StateNews;
use super::slot::Dispatcher;
use super::upstream::Upstream;

/// The prefix in our listing of every alias or model whose name contains neither `claude` nor `anthropic`: Claude Code
/// shows no other names.
pub const LISTING_PREFIX: &str = "anthropic/";

/// The estimated tokens from which on a count of less than half the estimate cannot be an error of the estimate.
const CUT_PROMPT_MIN: u64 = 2000;

/// The requests that a member of a pool gets at a time if neither the owner nor the server says a number. An upstream that
/// speaks the Messages API has limits of its own, and says with a 429 when they are reached.
const PLACES: u32 = 8;

/// The most kinds of dropped request parts that are warned about.
const WARNINGS_MAX: usize = 100;

/// The longest text of a kind that is remembered and shown, in characters.
const WARNED_LENGTH_MAX: usize = 100;

/// An upstream, and the facts learned about it.
#[derive(Debug)]
pub struct Served {
    upstream: Upstream,
    learned: Arc<Mutex<Learned>>,
    entry: Arc<DispatchEntry>,
    /// The most requests that it gets at a time; `None`: no limit.
    places: Option<u32>,
    /// The number of questions in the background whose ends were taken in.
    questions: AtomicU64,
    /// Asks for its own figures; `None`: it shares requests with no other upstream.
    load_watch: Option<Arc<LoadWatch>>,
}

/// An upstream's entry in the dispatch. It outlives a change of the upstream's settings.
#[derive(Debug)]
struct DispatchEntry {
    dispatcher: Arc<Dispatcher>,
    id: BoxId,
}

impl Drop for DispatchEntry {
    fn drop(&mut self) {
        self.dispatcher.remove(self.id);
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

    /// True if the upstream serves a model of this name. The name may have our listing's prefix.
    fn lists(&self, model: &str) -> bool {
        let bare = model.strip_prefix(LISTING_PREFIX).unwrap_or(model);
        let discovered = self.upstream.discovered();
        discovered.find(model).is_some() || discovered.find(bare).is_some()
    }

    /// True if the upstream has told its models, and this one is not among them.
    pub fn listing_lacks(&self, model: &str) -> bool {
        !self.upstream.discovered().models.is_empty() && !self.lists(model)
    }

    /// True if the upstream has refused a request of a pool because it does not have this model.
    pub fn is_known_to_lack(&self, model: &str) -> bool {
        self.learned().is_missing(model, Instant::now())
    }

    /// Its number in the dispatch.
    pub fn id(&self) -> BoxId {
        self.entry.id
    }

    /// True if its requests need a place: they share it with others, there is a limit for them, or they wait until its machine
    /// was woken.
    pub fn needs_place(&self) -> bool {
        self.places.is_some() || self.load_watch.is_some() || self.can_be_woken()
    }

    /// True if a magic packet wakes its machine.
    pub fn can_be_woken(&self) -> bool {
        self.upstream.config().wake.is_some()
    }

    /// The name of the model that a request for `requested` gets here. `named` is the model's name by an alias or a hook;
    /// otherwise the model is the requested one if it is served here, otherwise the upstream's own.
    pub fn model_for(&self, requested: &str, named: Option<&str>) -> String {
        let discovered = self.upstream.discovered();
        let bare = requested.strip_prefix(LISTING_PREFIX).unwrap_or(requested);
        let plain = route::without_window_mark(bare);
        if self.upstream.speaks_messages() {
            // It knows the names that clients use, and its own list was not asked for.
            return named.map(str::to_string).or(self.upstream.model()).unwrap_or_else(|| plain.to_string());
        }
        let listed = [requested, bare, plain].into_iter().find(|name| discovered.find(name).is_some());
        let model = named.or(listed).map(str::to_string).or_else(|| self.upstream.model());
        model.unwrap_or_else(|| requested.to_string())
    }

    /// The context window of a model in tokens, if the owner set it or the server lists it.
    fn window(&self, model: &str) -> Option<u64> {
        let set = self.upstream.config().settings.window;
        set.or_else(|| self.upstream.discovered().window(model))
    }

    /// The learned facts; those about an earlier server are forgotten first.
    fn learned(&self) -> MutexGuard<'_, Learned> {
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        learned.follow(self.upstream.generation());
        learned.compare_listing(self.upstream.discovered().identity());
        learned
    }

    /// The repairs that requests for the model need: those that its name tells, and those that were learned.
    fn repairs(&self, model: &str) -> Vec<Repair> {
        let mut repairs = Repair::known(model, self.upstream.discovered().refuses_extensions());
        repairs.extend(self.learned().repairs(model, Instant::now()));
        repairs.sort_by_key(Repair::rank);
        repairs
    }

    /// The count of the question with this hash, if the server has counted it before.
    pub fn count(&self, question: u64) -> Option<u64> {
        self.learned().count(question, Instant::now())
    }
}

/// An upstream that can answer a request.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The upstream.
    pub served: Arc<Served>,
    /// The model's name by an alias or a hook.
    named: Option<String>,
    /// 0 for a member of the pool; the place among the backups, from 1, for a backup.
    pub rank: usize,
}

impl Destination {
    fn new(served: &Arc<Served>, named: Option<&str>, rank: usize) -> Self {
        Destination { served: Arc::clone(served), named: named.map(str::to_string), rank }
    }

    /// The name of the model that a request for `requested` gets there.
    pub fn model(&self, requested: &str) -> String {
        self.served.model_for(requested, self.named.as_deref())
    }

    /// The context window of a model there in tokens, if the owner set it or the server lists it.
    pub fn window(&self, model: &str) -> Option<u64> {
        self.served.window(model)
    }

    /// The facts that are known now about a request for `requested` there.
    pub fn resolve(&self, requested: &str) -> Resolved {
        Resolved::of(&self.served, requested, self.named.as_deref())
    }
}

/// One set of upstreams, aliases and hooks.
#[derive(Debug)]
pub struct Gateway {
    /// Chooses among upstreams, and queues requests. It outlives a reload.
    dispatcher: Arc<Dispatcher>,
    upstreams: Vec<Arc<Served>>,
    aliases: Vec<Alias>,
    limits: Vec<Arc<ClientLimits>>,
    /// The rules that keep requests from upstreams.
    never_to: Vec<NeverTo>,
    search: Option<SearchConfig>,
    /// The names of the upstreams that an alias names.
    named: HashSet<String>,
    hooks: Hooks,
    /// The kinds of dropped request parts that were already warned about.
    warned: Mutex<HashSet<String>>,
    /// The changes of upstreams that `on_upstream_state` is still to be told.
    news: StateNews,
}

/// The known windows of those that share the requests for a model.
fn windows(destinations: &[Destination], requested: &str) -> impl Iterator<Item = u64> {
    let members = destinations.iter().filter(|destination| destination.rank == 0);
    members.filter_map(|member| member.window(&member.model(requested)))
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
    /// The facts that are known now about a request for `requested` at this upstream; see [`Served::model_for`].
    fn of(served: &Arc<Served>, requested: &str, named: Option<&str>) -> Resolved {
        let upstream = served.upstream();
        let discovered = upstream.discovered();
        // Read before the learned facts: if the server changes from here on, the answer's facts are found to be of an
        // older generation.
        let generation = upstream.generation();
        let model = served.model_for(requested, named);
        // Outside the expression below, which would hold the lock while `settings` takes it.
        let lessons = served.learned().lessons(&model, Instant::now());
        let repairs = served.repairs(&model);
        let mut settings = upstream.config().settings.clone();
        // The translation has better words for an image than a repair of the finished body.
        settings.vision &= !repairs.contains(&Repair::NoImages);
        Resolved {
            flavour: settings.flavour.unwrap_or(discovered.flavour),
            listed_window: served.window(&model),
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
        if learned.is_some_and(|mut learned| learned.learn_repair(&self.model, repair, Instant::now())) {
            self.warn_of(repair);
        }
    }

    fn warn_of(&self, repair: &Repair) {
        log::warn!("upstream {}: {} {repair}", self.served.name(), ShownText::new(&self.model));
    }

    /// Notes that the server has recognized a call of the model.
    pub fn learn_parsed_call(&self) {
        if let Some(mut learned) = self.learned() {
            learned.learn_parsed_call(&self.model, Instant::now());
        }
    }

    /// Notes that the server has dropped the end of an answer, perhaps a call. Unless it has recognized a call of the model
    /// before, later calls come as text. The log says so once.
    pub fn learn_dropped_call(&self) {
        let learned = self.learned();
        if learned.is_some_and(|mut learned| learned.learn_dropped_call(&self.model, Instant::now())) {
            self.warn_of(&Repair::CallsAsText);
        }
    }

    /// Notes that the upstream does not have this model, until it lists something else or is restarted. The log says so once.
    pub fn learn_lack(&self) {
        if self.learned().is_some_and(|mut learned| learned.learn_missing(&self.model, Instant::now())) {
            log::warn!(
                "upstream {}: it does not have the model {}: the other upstreams of its pool get the requests until it lists \
                 other models; load the model there, or name the one that it has in the alias",
                self.served.name(),
                ShownText::new(&self.model)
            );
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

    /// A gateway that replaces another one. An upstream keeps its connections, its queue, and the facts learned about it,
    /// except for repairs, unless more of its configuration has changed than how many requests it gets and when.
    ///
    /// # Errors
    /// Those of [`Gateway::new`].
    pub fn after(old: Option<&Gateway>, loaded: Loaded, options: &CallLimits) -> Result<Self, String> {
        let Loaded { hooks, config: Config { upstreams, aliases, limits, never_to, search } } = loaded;
        let dispatcher = old.map(|old| Arc::clone(&old.dispatcher)).unwrap_or_default();
        let named = named(&aliases);
        let pooled = pooled(&upstreams, &aliases, &named);
        let passes = upstreams.iter().any(|config| config.protocol == UpstreamProtocol::Messages);
        let searches = search.is_some() || hooks.defines(Hook::Search);
        let serve = |mut config: config::UpstreamConfig| {
            config.settings.foreign_thinking = !passes;
            config.settings.web_search = searches;
            let before = old.and_then(|old| old.upstream(&config.name));
            let is_pooled = pooled.contains(&config.name);
            let is_limited = is_pooled && config.protocol != UpstreamProtocol::Messages;
            let places = config.max_in_flight.or(is_limited.then_some(PLACES));
            let load_watch = match before.and_then(|before| before.load_watch.as_ref()) {
                Some(watch) if is_pooled => Some(Arc::clone(watch)),
                _ => is_pooled.then(Arc::default),
            };
            let same = before.filter(|before| {
                before.upstream.config().has_same_server(&config)
                    && before.upstream.endpoint().has_current_authorities(&config)
            });
            if let Some(same) = same {
                // An operator who changed the model server tells so by a reload.
                same.learned().forget_repairs();
                if *same.upstream.config() == config && same.load_watch.is_some() == is_pooled {
                    return Ok(Arc::clone(same));
                }
            }
            let (upstream, learned) = match same {
                Some(same) => (same.upstream.with_config(config), Arc::clone(&same.learned)),
                None => (Upstream::new(config, options)?, Arc::default()),
            };
            let config = upstream.config();
            let entry = match before.filter(|before| before.upstream.config().url == config.url) {
                Some(before) => Arc::clone(&before.entry),
                None => {
                    let id = dispatcher.add(Fnv::EMPTY.push(config.name.as_bytes()).mixed());
                    Arc::new(DispatchEntry { dispatcher: Arc::clone(&dispatcher), id })
                }
            };
            dispatcher.set(entry.id, places, config);
            let questions = AtomicU64::default();
            Ok(Arc::new(Served { upstream, learned, entry, places, questions, load_watch }))
        };
        let upstreams = upstreams.into_iter().map(serve).collect::<Result<Vec<_>, String>>()?;
        let (warned, news) = Default::default();
        Ok(Gateway { dispatcher, upstreams, aliases, limits, never_to, search, named, hooks, warned, news })
    }

    /// Chooses among upstreams, and queues requests.
    pub fn dispatcher(&self) -> &Arc<Dispatcher> {
        &self.dispatcher
    }

    /// The upstreams, the default one first.
    pub fn upstreams(&self) -> &[Arc<Served>] {
        &self.upstreams
    }

    /// The alias table.
    pub fn aliases(&self) -> &[Alias] {
        &self.aliases
    }

    /// The speeds of all upstreams' models as text, each under the names of both, for a restart.
    pub fn speeds(&self) -> Vec<(String, String)> {
        let of = |served: &Arc<Served>| {
            let speeds = self.dispatcher.speeds(served.id()).into_iter();
            let name = served.name().to_owned();
            speeds.map(move |(model, speed)| (format!("{name}\n{model}"), speed)).collect::<Vec<_>>()
        };
        self.upstreams.iter().flat_map(of).collect()
    }

    /// Takes over a speed of [`Gateway::speeds`]. Ignores that of an upstream which is no longer configured.
    pub fn restore_speed(&self, names: &str, speed: &str) {
        let Some((name, model)) = names.split_once('\n') else { return };
        if let Some(served) = self.upstream(name) {
            self.dispatcher.restore_speed(served.id(), model, speed);
        }
    }

    /// The learned facts about all upstreams' models as text, each under the names of both, for a restart.
    pub fn learned(&self, time: SaveTime) -> Vec<(String, String)> {
        let of = |served: &Arc<Served>| {
            let (name, learned) = (served.name(), served.learned());
            // Facts that were not compared yet are about the listing that they came with.
            let identity = learned.restored.unwrap_or_else(|| served.upstream.discovered().identity());
            let texts = learned.to_texts(time).into_iter().filter(|(_, text)| !text.is_empty());
            texts
                .map(|(model, text)| (format!("{name}\n{model}"), format!("{identity}\n{text}")))
                .collect::<Vec<_>>()
        };
        self.upstreams.iter().flat_map(of).collect()
    }

    /// Takes over facts of [`Gateway::learned`]. They are forgotten when the server turns out to list something else.
    pub fn restore_learned(&self, names: &str, text: &str, time: SaveTime) {
        let (Some((name, model)), Some((identity, text))) = (names.split_once('\n'), text.split_once('\n'))
        else {
            return;
        };
        if let (Some(served), Ok(identity)) = (self.upstream(name), identity.parse()) {
            let mut learned = served.learned();
            learned.restored = Some(identity);
            learned.restore(model, text, time);
        }
    }

    /// The limits of the clients whose key has this owner, if it has any.
    pub fn limits_of(&self, owner: &str) -> Option<Arc<ClientLimits>> {
        self.limits.iter().find(|limits| limits.name == owner).cloned()
    }

    /// The owners of keys that have limits.
    pub fn limited_owners(&self) -> impl Iterator<Item = &str> {
        self.limits.iter().map(|limits| limits.name.as_str())
    }

    /// The search engine of web searches.
    pub fn search(&self) -> Option<&SearchConfig> {
        self.search.as_ref()
    }

    /// The rules that keep requests from the upstream of this name.
    pub fn never_to<'g>(&'g self, upstream: &'g str) -> impl Iterator<Item = &'g NeverTo> {
        self.never_to.iter().filter(move |rules| rules.upstream == upstream)
    }

    /// True if an upstream speaks the Messages API, so that requests may pass in the client's own bytes.
    pub fn speaks_messages(&self) -> bool {
        self.upstreams.iter().any(|served| served.upstream.speaks_messages())
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

    /// Logs that the state of an upstream has changed, and tells it to `on_upstream_state`, in a thread of its own: the
    /// requests that have noticed the change go on. `why` is the reason.
    pub fn tell_change(self: &Arc<Self>, name: &str, change: StateChange, why: &str) {
        let StateChange { state, before: (before, lasted) } = change;
        self.dispatcher.tally().add_change(state);
        let level = if state == HealthState::Well { log::Level::Info } else { log::Level::Warn };
        let why = ShownText::new(why).to_string();
        let seconds = lasted.as_secs();
        log::log!(
            level,
            "upstream {name}: {} (it was {} for {seconds} s): {why}",
            state.name(),
            before.name()
        );
        if !self.hooks.defines(Hook::UpstreamState) || !self.news.add(name, state, why) {
            return;
        }
        let gateway = Arc::clone(self);
        let started = threads::background("upstream state", move || {
            while let Some((name, state, why)) = gateway.news.next() {
                gateway.hooks.on_upstream_state(&name, state.name(), &why);
            }
        });
        if let Err(error) = started {
            self.news.stop();
            log::warn!("no thread to run on_upstream_state: {error}");
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
    pub fn alias(&self, model: &str) -> Option<&Alias> {
        route::find(&self.aliases, self.requested(model))
    }

    /// The upstreams that can answer a request for `model`: those that a hook chose (`chosen`) or the alias table names. If
    /// neither names one, those that list the model, otherwise the default one. There the model is the alias's; otherwise
    /// the one that the hook named (`own_model`); otherwise the requested one if it is served there; otherwise the
    /// upstream's own. Nothing is asked: only known facts are used, see [`Gateway::refresh`].
    ///
    /// # Errors
    /// 404: no alias matches, or no upstream has the chosen name.
    pub fn destinations(
        &self,
        model: &str,
        chosen: &[String],
        own_model: Option<&str>,
    ) -> Result<Vec<Destination>, Error> {
        let alias = self.alias(model);
        let found = match alias {
            _ if !chosen.is_empty() => self.chosen(chosen, alias, model, own_model),
            Some(alias) if !alias.members.is_empty() => self.members(alias, model, own_model),
            None if !self.aliases.is_empty() => Vec::new(),
            open => self.listing(open, model, own_model),
        };
        if found.is_empty() {
            return Err(Error::new(Kind::NotFound, format!("model: {model}")).retry(Retry::Never));
        }
        Ok(found)
    }

    /// The upstreams that a hook chose. Only an alias that leads to the same upstream may rename the model, and if the hook
    /// names a model, only an alias with exactly that name.
    fn chosen(
        &self,
        chosen: &[String],
        alias: Option<&Alias>,
        model: &str,
        own_model: Option<&str>,
    ) -> Vec<Destination> {
        let alias = alias.filter(|alias| own_model.is_none_or(|own| alias.pattern == own));
        let default = self.upstreams.first().map(|served| served.name());
        let renamed = |name: &str| {
            let alias = alias?;
            let is_open = alias.members.is_empty() && default == Some(name);
            let mut members = alias.members.iter().chain(&alias.backup);
            let member = members.find(|member| member.upstream == name);
            (member.is_some() || is_open).then(|| self.model_by(alias, member, model))?
        };
        let upstreams = chosen.iter().filter_map(|name| self.upstream(name));
        let destination = |served: &Arc<Served>| {
            Destination::new(served, renamed(served.name()).as_deref().or(own_model), 0)
        };
        upstreams.map(destination).collect()
    }

    /// The model that an alias names for one of its upstreams; `None`: the upstream's own. See [`Gateway::fits`].
    fn model_by(&self, alias: &Alias, member: Option<&AliasMember>, model: &str) -> Option<String> {
        if member.is_some_and(|member| !self.fits(alias, member)) {
            return None;
        }
        alias.model_for(member, self.requested(model))
    }

    /// True if a model that an alias names for all its upstreams can be one of this upstream. The name of a cloud's model
    /// means nothing to a box, nor the other way round.
    fn fits(&self, alias: &Alias, member: &AliasMember) -> bool {
        let protocol = |name: &str| self.upstream(name).map(|served| served.upstream.config().protocol);
        alias.fits(member, &protocol)
    }

    /// True if an upstream may get a request of this alias because a hook asks for any other upstream: the alias lists it, or
    /// it is neither a server of the Messages API nor one that must not get some requests.
    pub fn may_replace(&self, alias: Option<&Alias>, served: &Served) -> bool {
        let is_listed = alias.is_some_and(|alias| names(alias).any(|name| name == served.name()));
        is_listed || (!served.upstream.speaks_messages() && self.never_to(served.name()).next().is_none())
    }

    /// The members of an alias's pool, and its backups.
    fn members(&self, alias: &Alias, model: &str, own_model: Option<&str>) -> Vec<Destination> {
        let destination = |rank: usize, member: &AliasMember| {
            let named = self.model_by(alias, Some(member), model);
            let served = self.upstream(&member.upstream)?;
            Some(Destination::new(served, named.as_deref().or(own_model), rank))
        };
        let members = alias.members.iter().filter_map(|member| destination(0, member));
        let is_backup =
            |member: &&AliasMember| !alias.members.iter().any(|it| it.upstream == member.upstream);
        let backup = alias.backup.iter().filter(is_backup).enumerate();
        members.chain(backup.filter_map(|(at, member)| destination(at + 1, member))).collect()
    }

    /// The upstreams that list the model. If none does, the default one, and those that list the default one's model: they
    /// are a pool, as far as no alias names them.
    fn listing(&self, alias: Option<&Alias>, model: &str, own_model: Option<&str>) -> Vec<Destination> {
        let renamed = alias.and_then(|alias| alias.model_for(None, self.requested(model)));
        let sought = renamed.as_deref().unwrap_or(model);
        let names = [sought, route::without_window_mark(sought)];
        let lists = |served: &Arc<Served>| names.iter().any(|name| served.lists(name));
        let Some(first) = self.upstreams.iter().find(|served| lists(served)).or_else(|| self.default())
        else {
            return Vec::new();
        };
        let named = renamed.as_deref().or(own_model);
        let mut found = vec![Destination::new(first, named, 0)];
        if self.is_untold(first) {
            // Nobody has told its models yet: whichever answers first gets the requests.
            let others =
                self.upstreams.iter().filter(|other| !Arc::ptr_eq(other, first) && self.is_untold(other));
            found.extend(others.map(|other| Destination::new(other, named, 0)));
        } else if !self.is_named(first) {
            let own = first.model_for(model, named);
            let others =
                self.upstreams.iter().filter(|other| !Arc::ptr_eq(other, first) && !self.is_named(other));
            let others = others.filter(|other| other.lists(&own));
            found.extend(others.map(|other| Destination::new(other, Some(&own), 0)));
        }
        found
    }

    /// True if an upstream that no alias names has never told its models, and the operator has not named one either.
    fn is_untold(&self, served: &Arc<Served>) -> bool {
        let upstream = &served.upstream;
        !self.is_named(served) && !upstream.speaks_messages() && upstream.model().is_none()
    }

    /// The upstream of requests for which none is known: the first one, unless it has never told its models and another one
    /// that no alias names has. That is never one that speaks the Messages API: a box that is down sends nothing to the cloud.
    fn default(&self) -> Option<&Arc<Served>> {
        let first = self.upstreams.first()?;
        let is_free = |served: &&Arc<Served>| !self.is_named(served) && !served.upstream.speaks_messages();
        let mut others = self.upstreams.iter().filter(is_free);
        let has_model = |served: &&Arc<Served>| served.upstream.model().is_some();
        match has_model(&first) || self.is_named(first) {
            true => Some(first),
            false => others.find(has_model).or(Some(first)),
        }
    }

    /// True if an alias names this upstream.
    fn is_named(&self, served: &Served) -> bool {
        self.named.contains(served.name())
    }

    /// The first destination of a request; see [`Gateway::destinations`]. Its window is the smallest of those that share
    /// its requests, since a conversation may go to any of them.
    ///
    /// # Errors
    /// Those of [`Gateway::destinations`].
    pub fn resolve(&self, requested: &str) -> Result<Resolved, Error> {
        let destinations = self.destinations(requested, &[], None)?;
        let found = destinations.first().map(|first| first.resolve(requested));
        let mut found = found
            .ok_or_else(|| Error::new(Kind::NotFound, format!("model: {requested}")).retry(Retry::Never))?;
        found.listed_window = windows(&destinations, requested).min();
        Ok(found)
    }

    /// Renews the facts that a request needs, where that is due, and waits where they may be wrong: for the upstream that
    /// the request goes to, and if no upstream is named and none lists the model, for those whose first listing has not
    /// come yet. A pool waits only if no member's facts are known to be right.
    ///
    /// # Errors
    /// [`Failure::ClientGone`].
    pub fn refresh(&self, requested: &str, chosen: &[String], wait: &Rc<dyn Wait>) -> Result<(), Failure> {
        let Ok(destinations) = self.destinations(requested, chosen, None) else { return Ok(()) };
        let members = destinations.iter().map(|destination| &destination.served);
        members.clone().for_each(|served| served.upstream.notice_closed());
        let is_named =
            !chosen.is_empty() || self.alias(requested).is_some_and(|alias| !alias.members.is_empty());
        if let [only] = destinations.as_slice() {
            let served = &only.served;
            if is_named || self.upstreams.len() == 1 || served.lists(requested) {
                return served.upstream.refresh(wait);
            }
            let others = self.upstreams.iter().filter(|other| other.upstream.is_unasked());
            return refresh_together(std::iter::once(served).chain(others), wait);
        }
        if members.clone().any(|served| !served.upstream.is_stale()) {
            members.for_each(|served| _ = served.upstream.renew());
            return Ok(());
        }
        refresh_together(members, wait)
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

    /// Has the facts about all upstreams, and the figures of the members of pools, asked for in the background where that is
    /// due without any request, and takes in how the last questions ended. Call it every second, so that states are told
    /// within seconds of a change.
    pub fn keep_current(self: &Arc<Self>) {
        for served in &self.upstreams {
            served.upstream.keep_current();
            if let Some(watch) = &served.load_watch {
                watch.ask_if_due(&served.upstream, served.id(), &self.dispatcher);
                self.notice_hang(served);
            }
            let (ended, end) = served.upstream.last_question();
            // Without places no request would tell that it is well again.
            if served.questions.swap(ended, Ordering::Relaxed) == ended || !served.needs_place() {
                continue;
            }
            self.warn_of_lacks(served);
            self.warn_of_windows(served);
            if let Some(change) = self.dispatcher.probed(served.id(), end) {
                self.tell_change(served.name(), change, "it does not answer");
            }
        }
    }

    /// Warns once if the upstreams that share an alias's requests with this one have different windows.
    fn warn_of_windows(&self, served: &Arc<Served>) {
        let own = served.upstream.model();
        let names = self.aliases.iter().map(|alias| alias.pattern.as_str()).chain(own.as_deref());
        for name in names {
            let Ok(destinations) = self.destinations(name, &[], None) else { continue };
            let shares = |it: &Destination| it.rank == 0 && Arc::ptr_eq(&it.served, served);
            let (least, most) = (windows(&destinations, name).min(), windows(&destinations, name).max());
            if let (Some(least), Some(most)) = (least, most)
                && least < most
                && destinations.iter().any(shares)
            {
                let words = format!(
                    "clients are told the smallest window of its upstreams ({least} tokens; the largest has {most})"
                );
                let todo = "give them the same, or an alias each";
                self.warn_once(
                    "model",
                    &format!("{name}: {words}, since a conversation may go to any of them: {todo}"),
                );
            }
        }
    }

    /// Warns once if an upstream does not list a model that a pool's alias asks it for.
    fn warn_of_lacks(&self, served: &Served) {
        for alias in self.aliases.iter().filter(|alias| names(alias).nth(1).is_some()) {
            let members = alias.members.iter().chain(&alias.backup);
            let models = members
                .filter(|it| it.upstream == served.name() && self.fits(alias, it))
                .filter_map(|it| alias.model_of(it));
            for model in models.filter(|model| !model.contains('*') && served.listing_lacks(model)) {
                let words = format!("{}: it does not list the model {model} of the alias", served.name());
                self.warn_once("upstream", &format!("{words} '{}'", alias.pattern));
            }
        }
    }

    /// Gives the requests of an upstream up if it hangs, so that others answer them.
    fn notice_hang(self: &Arc<Self>, served: &Served) {
        let endpoint = served.upstream.endpoint();
        let hang_after = endpoint.limits().hang_after;
        let Some((silent, change)) = self.dispatcher.look(served.id(), hang_after) else { return };
        endpoint.give_up();
        log::error!(
            "upstream {}: out: it hangs: it accepts connections, but no token has come for {} s; restart the model server \
             there. Its requests go to other upstreams",
            served.name(),
            silent.as_secs()
        );
        if let Some(change) = change {
            self.tell_change(served.name(), change, "it hangs");
        }
    }
}

/// The names of the members and backups of an alias.
fn names(alias: &Alias) -> impl Iterator<Item = &String> {
    alias.members.iter().chain(&alias.backup).map(|member| &member.upstream)
}

/// The names of the upstreams that an alias names.
fn named(aliases: &[Alias]) -> HashSet<String> {
    aliases.iter().flat_map(names).cloned().collect()
}

/// The upstreams that share requests with others: the members of an alias's pool, and if more than one upstream is named
/// by no alias, these, since they are a pool for each model that several of them list.
fn pooled(
    upstreams: &[config::UpstreamConfig],
    aliases: &[Alias],
    named: &HashSet<String>,
) -> HashSet<String> {
    let pools = aliases.iter().filter(|alias| names(alias).nth(1).is_some()).flat_map(names);
    let free: Vec<&String> =
        upstreams.iter().map(|upstream| &upstream.name).filter(|name| !named.contains(*name)).collect();
    let free = if free.len() > 1 { free } else { Vec::new() };
    pools.chain(free).cloned().collect()
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
