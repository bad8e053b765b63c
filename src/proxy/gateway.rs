//! The upstreams, aliases and hooks in force: one immutable set, swapped as a whole.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Config;
use crate::error::{Error, Kind, Retry};
use crate::hooks::{Hooks, Loaded};
use crate::openai::Counts;
use crate::route::{self, Alias};
use crate::upstream::{Options, Upstream};

/// How much one answer moves what is learned of a model's tokens.
const LEARNING_RATE: f64 = 0.2;

/// A ratio outside this range is a miscount, not a tokenizer.
const RATIO_RANGE: (f64, f64) = (0.3, 3.0);

/// An upstream, and what was learned of it.
#[derive(Debug)]
pub struct Served {
    upstream: Upstream,
    /// Real tokens to estimated ones, by model.
    ratios: Mutex<HashMap<String, f64>>,
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

    /// Real tokens to estimated ones; 1 until there was an answer.
    pub fn tokens_ratio(&self, model: &str) -> f64 {
        let ratios = self.ratios.lock().unwrap_or_else(PoisonError::into_inner);
        ratios.get(model).copied().unwrap_or(1.0)
    }

    /// Learns from an answer: the tokens told, and the estimate that the request went out with.
    pub fn learn(&self, model: &str, counts: Counts, estimate: u64) {
        if counts.prompt == 0 || estimate == 0 {
            return;
        }
        let mut ratios = self.ratios.lock().unwrap_or_else(PoisonError::into_inner);
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
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Route {
    /// The upstream.
    pub served: Arc<Served>,
    /// The model, where alias or hook names one; else the upstream's own.
    pub model: Option<String>,
}

impl Gateway {
    /// A gateway of what was loaded. No connection is made yet.
    ///
    /// # Errors
    /// An upstream's URL or key cannot be used.
    pub fn new(loaded: Loaded, options: &Options) -> Result<Self, String> {
        let Loaded { hooks, config: Config { upstreams, aliases } } = loaded;
        let serve = |config| {
            let upstream = Upstream::new(config, options)?;
            Ok(Arc::new(Served { upstream, ratios: Mutex::default() }))
        };
        let upstreams = upstreams.into_iter().map(serve).collect::<Result<Vec<_>, String>>()?;
        Ok(Gateway { upstreams, aliases, hooks })
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

    /// The upstream of that name.
    pub fn upstream(&self, name: &str) -> Option<&Arc<Served>> {
        self.upstreams.iter().find(|served| served.name() == name)
    }

    /// Where a request for `model` goes. `chosen`: the upstream that a hook named; the alias table then only renames.
    ///
    /// # Errors
    /// 404 where no alias matches; 500 where a hook named an upstream that does not exist.
    pub fn route(&self, model: &str, chosen: Option<&str>) -> Result<Route, Error> {
        if let Some(name) = chosen {
            let Some(served) = self.upstream(name) else {
                let what = format!("a hook chose the upstream '{name}', which does not exist");
                return Err(Error::new(Kind::Api, what).retry(Retry::Never));
            };
            let alias = route::find(&self.aliases, model).filter(|alias| alias.upstream == name);
            return Ok(Route {
                served: Arc::clone(served),
                model: alias.and_then(|alias| alias.model.clone()),
            });
        }
        let alias = route::find(&self.aliases, model);
        let found = alias.and_then(|alias| Some((alias, self.upstream(&alias.upstream)?)));
        let Some((alias, served)) = found else {
            return Err(Error::new(Kind::NotFound, format!("model: {model}")).retry(Retry::Never));
        };
        Ok(Route { served: Arc::clone(served), model: alias.model.clone() })
    }
}
