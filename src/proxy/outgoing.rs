//! The last check of a request: every body passes it just before it is sent, and a body that `never_to` keeps from its upstream
//! is not sent.
//!
//! The client's own request was searched before, to find the upstreams that may get it. Hooks, the translation, the handover
//! of thinking and repairs change it after that: they add texts, and they join texts that stood apart. So the bytes that
//! really go out are searched. An upstream without rules costs nothing here.

use std::rc::Rc;
use std::sync::Arc;

use crate::error::{Error, Kind, Retry};
use crate::fleet::{Gateway, Resolved, Served};
use crate::json::{self, Value};
use crate::openai::{form_parts, is_form};
use crate::policy::{Held, RequestFacts, is_searchable};
use crate::protocol::tokenize::{CountStep, ask_token_count};
use crate::transport::{ExtraHeaders, Failure, Path, Response, Wait, has_left};

use super::budget::MemoryShare;
use super::footprint::BodyFootprint;
use super::stop::Stop;

/// Sends the bodies of one request, and checks each of them before.
pub(super) struct Gate {
    gateway: Arc<Gateway>,
    /// Memory for the tree of a body while it is searched.
    room: MemoryShare,
}

impl Gate {
    pub(super) fn new(gateway: &Arc<Gateway>, room: MemoryShare) -> Self {
        Gate { gateway: Arc::clone(gateway), room }
    }

    /// Sends a body of this content type to an upstream.
    ///
    /// # Errors
    /// Those of [`check`]; nothing was sent then. The inner error is that of the call.
    pub(super) fn post(
        &self,
        served: &Served,
        (path, headers): (Path<'_>, &ExtraHeaders),
        (kind, body): (&str, &[u8]),
        wait: &Rc<dyn Wait>,
    ) -> Result<Result<Response, Failure>, Stop> {
        check(&self.gateway, served, (kind, body), Some((&self.room, wait.as_ref())))?;
        Ok(served.upstream().post_with(path, headers, (kind, body), wait))
    }

    /// Asks an upstream for a count of tokens; `note` is told each step. `None`: it cannot count, did not answer in time, or must not get the question.
    pub(super) fn ask_token_count(
        &self,
        resolved: &Resolved,
        question: &[u8],
        wait: &Rc<dyn Wait>,
        note: &dyn Fn(CountStep<'_>),
    ) -> Option<u64> {
        let body = ("application/json", question);
        check(&self.gateway, &resolved.served, body, Some((&self.room, wait.as_ref()))).ok()?;
        ask_token_count(resolved, question, wait, note)
    }
}

/// Checks a body that is about to be sent. `shared`: the memory for its tree, and the client who waits, if one does.
///
/// # Errors
/// 403: a rule keeps the body back. The client has left during the search. 413 and 529, see [`MemoryShare::claim`].
pub(super) fn check(
    gateway: &Gateway,
    served: &Served,
    (kind, body): (&str, &[u8]),
    shared: Option<(&MemoryShare, &dyn Wait)>,
) -> Result<(), Stop> {
    if gateway.never_to(served.name()).next().is_none() {
        return Ok(());
    }
    let is_stopped = || shared.is_some_and(|(_, wait)| has_left(wait));
    let facts = RequestFacts {
        body: &Value::Null,
        beside: &[],
        user: None,
        is_opaque: false,
        header: &|_| Vec::new(),
        is_stopped: &is_stopped,
    };
    let kept = if is_form(kind) {
        let form = FormTexts::read(kind, body);
        keep_back(
            gateway,
            served,
            &RequestFacts { beside: &form.texts(), is_opaque: form.is_opaque, ..facts },
        )
    } else {
        if let Some((room, wait)) = shared {
            room.claim(BodyFootprint::read(body)?.tree(), wait)?;
        }
        let mut copy = body.to_vec();
        let kept = match json::parse(&mut copy) {
            Ok(tree) => keep_back(gateway, served, &RequestFacts { body: &tree, ..facts }),
            Err(_) => Err(refuse(served, &Held::Unchecked)),
        };
        if let Some((room, _)) = shared {
            room.set(0);
        }
        kept
    };
    match kept {
        Err(_) if is_stopped() => Err(Stop::ClientGone),
        kept => Ok(kept?),
    }
}

/// Applies the rules of an upstream to a request.
///
/// # Errors
/// 403: one of them keeps it back.
pub(super) fn keep_back(gateway: &Gateway, served: &Served, facts: &RequestFacts<'_>) -> Result<(), Error> {
    let mut rules = gateway.never_to(served.name());
    rules.find_map(|rules| rules.held(facts)).map_or(Ok(()), |held| Err(refuse(served, &held)))
}

fn refuse(served: &Served, held: &Held) -> Error {
    let (name, why) = (served.name(), held.words());
    log::info!("never_to: a request was kept from upstream {name}: {why}");
    let what = format!("never_to: this request may not go to '{name}': {why}; ask for another model");
    Error::new(Kind::Permission, what).retry(Retry::Never)
}

/// The texts of a form.
pub(super) struct FormTexts<'f> {
    /// The content type, which goes to the upstream too.
    kind: &'f str,
    /// The whole form with the names of its fields and files.
    whole: &'f str,
    /// The values, one behind the other: a text may be split over them.
    values: String,
    /// True if a part of it cannot be searched.
    pub(super) is_opaque: bool,
}

impl<'f> FormTexts<'f> {
    pub(super) fn read(kind: &'f str, form: &'f [u8]) -> Self {
        let parts = form_parts(form, kind);
        let is_text = parts.as_ref().is_some_and(|parts| {
            parts.iter().all(|part| is_searchable(part.label, part.value))
                && std::str::from_utf8(form).is_ok()
        });
        let values = parts.unwrap_or_default().into_iter();
        FormTexts {
            kind,
            whole: std::str::from_utf8(form).unwrap_or_default(),
            values: values.filter_map(|part| std::str::from_utf8(part.value).ok()).collect(),
            is_opaque: !is_text,
        }
    }

    pub(super) fn texts(&self) -> [&str; 3] {
        [self.kind, self.whole, &self.values]
    }
}
