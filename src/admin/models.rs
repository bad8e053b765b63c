//! `GET /v1/models` and `GET /v1/models/{id}`: the aliases first, then the models of the upstreams.
//!
//! Clients of the Messages API get its format, all others OpenAI's.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use crate::error::{Error, Kind};
use crate::http::Request;
use crate::json::Value;
use crate::transport::Wait;

use crate::fleet::{Gateway, LISTING_PREFIX, Served};

use super::environment::describe;
use super::query::parameter;

/// The number of models on a page if the client does not set it, and the most (the API's limits).
const PAGE_SIZE: usize = 20;
const PAGE_SIZE_MAX: usize = 1000;

/// The API requires a date, and nobody knows one.
const CREATED_AT: &str = "1970-01-01T00:00:00Z";

/// One listed model.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    id: String,
    display_name: String,
    /// The text that Claude Code shows beside the name in `/model`.
    description: String,
    window: Option<u64>,
    max_tokens: Option<u64>,
}

/// The page of the listing that the request asks for.
///
/// # Errors
/// 400: a limit or an id is invalid.
pub fn list(gateway: &Gateway, request: &Request, wait: &Rc<dyn Wait>) -> Result<Value<'static>, Error> {
    let models = listing(gateway, wait);
    if !is_anthropic(request) {
        let data: Vec<Value<'static>> = models.iter().map(Listed::as_openai).collect();
        return Ok(Value::object([("object", "list".into()), ("data", data.into())]));
    }
    let (page, has_more) = page(&models, request.query.as_deref())?;
    let id = |model: Option<&Listed>| model.map_or(Value::Null, |model| model.id.clone().into());
    Ok(Value::object([
        ("data", page.iter().map(Listed::as_anthropic).collect::<Vec<_>>().into()),
        ("has_more", has_more.into()),
        ("first_id", id(page.first())),
        ("last_id", id(page.last())),
    ]))
}

/// One model by its id, which may hold slashes.
///
/// # Errors
/// 404: no alias or upstream has it.
pub fn find(
    gateway: &Gateway,
    id: &str,
    request: &Request,
    wait: &Rc<dyn Wait>,
) -> Result<Value<'static>, Error> {
    let id = percent_decode_str(id).decode_utf8_lossy();
    let found = listing(gateway, wait).into_iter().find(|model| model.id == id);
    let model = found.ok_or_else(|| Error::new(Kind::NotFound, format!("model: {id}")))?;
    Ok(if is_anthropic(request) { model.as_anthropic() } else { model.as_openai() })
}

/// Each alias, then each model of the upstreams, under the names that lead to it. The alias table may send a model's
/// name to an upstream that does not list it, or nowhere. The effect of a function `on_request` is not known here.
fn listing(gateway: &Gateway, wait: &Rc<dyn Wait>) -> Vec<Listed> {
    // A client that has left is noticed when the answer is written.
    let _ = gateway.refresh_all(wait);
    let resolve = |name: &str| gateway.resolve(name).ok();
    let mut models: Vec<Listed> = Vec::new();
    let mut known: HashSet<String> = HashSet::new();
    let mut add = |name: &str, display_name: &str, served: &Arc<Served>, model: &str| {
        let shown = (!is_shown_by_claude_code(name)).then(|| format!("{LISTING_PREFIX}{name}"));
        for id in shown.into_iter().chain([name.to_string()]) {
            if known.contains(&id) {
                continue;
            }
            let found = resolve(&id).filter(|found| found.is(served, model));
            known.extend(found.is_some().then(|| id.clone()));
            models.extend(found.map(|found| Listed {
                id,
                display_name: display_name.to_string(),
                description: describe(&found),
                window: found.window(),
                max_tokens: found.settings.max_tokens,
            }));
        }
    };
    for alias in gateway.aliases().iter().filter(|alias| !alias.pattern.contains('*')) {
        if let Some(found) = resolve(&alias.pattern) {
            let display_name = format!("{} ({})", alias.pattern, found.model);
            add(&alias.pattern, &display_name, &found.served, &found.model);
        }
    }
    for served in gateway.upstreams() {
        for model in &served.upstream().discovered().models {
            add(&model.id, &model.id, served, &model.id);
        }
    }
    models
}

fn is_shown_by_claude_code(id: &str) -> bool {
    let id = id.to_ascii_lowercase();
    id.contains("claude") || id.contains("anthropic")
}

/// True if the client speaks the Messages API. Its headers show this, since both APIs use the same path.
fn is_anthropic(request: &Request) -> bool {
    let has = |name: &str| request.header(name).is_some();
    let agent = request.header("user-agent").unwrap_or("").to_ascii_lowercase();
    has("anthropic-version") || has("x-api-key") || has("anthropic-beta") || is_shown_by_claude_code(&agent)
}

fn page<'m>(models: &'m [Listed], query: Option<&str>) -> Result<(&'m [Listed], bool), Error> {
    let decoded = |name: &str| {
        parameter(query, name).map(|value| percent_decode_str(value).decode_utf8_lossy().into_owned())
    };
    let limit = match decoded("limit") {
        None => PAGE_SIZE,
        Some(text) => match text.parse() {
            Ok(limit @ 1..=PAGE_SIZE_MAX) => limit,
            _ => return Err(Error::invalid(format!("limit: Input should be between 1 and {PAGE_SIZE_MAX}"))),
        },
    };
    let position = |name: &str| match decoded(name) {
        None => Ok(None),
        Some(id) => match models.iter().position(|model| model.id == id) {
            Some(at) => Ok(Some(at)),
            None => Err(Error::invalid(format!("{name}: no model has the id '{id}'"))),
        },
    };
    if let Some(before) = position("before_id")? {
        let start = before.saturating_sub(limit);
        return Ok((models.get(start..before).unwrap_or_default(), start > 0));
    }
    let start = position("after_id")?.map_or(0, |after| after + 1);
    let end = models.len().min(start + limit);
    Ok((models.get(start..end).unwrap_or_default(), end < models.len()))
}

impl Listed {
    fn as_anthropic(&self) -> Value<'static> {
        let number = |n: Option<u64>| n.map_or(Value::Null, Value::from);
        Value::object([
            ("type", "model".into()),
            ("id", self.id.clone().into()),
            ("display_name", self.display_name.clone().into()),
            ("description", self.description.clone().into()),
            ("created_at", CREATED_AT.into()),
            ("lifecycle", "active".into()),
            ("line", Value::Null),
            ("deprecated_at", Value::Null),
            ("retires_at", Value::Null),
            ("max_input_tokens", number(self.window)),
            ("max_tokens", number(self.max_tokens.or(self.window))),
            ("capabilities", Value::Null),
        ])
    }

    fn as_openai(&self) -> Value<'static> {
        Value::object([
            ("id", self.id.clone().into()),
            ("object", "model".into()),
            ("created", 0u64.into()),
            ("owned_by", "sparkgap".into()),
            ("max_model_len", self.window.map_or(Value::Null, Value::from)),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models() -> Vec<Listed> {
        let model = |id: &str| Listed {
            id: id.into(),
            display_name: id.into(),
            description: String::new(),
            window: None,
            max_tokens: None,
        };
        ["a", "b/c", "d"].map(model).to_vec()
    }

    #[test]
    fn pages() {
        let models = models();
        let ids = |query: &str| {
            page(&models, Some(query))
                .map(|(page, more)| (page.iter().map(|m| m.id.clone()).collect::<Vec<_>>().join(" "), more))
        };
        for (query, expected, more) in [
            ("", "a b/c d", false),
            ("limit=1", "a", true),
            ("limit=1&after_id=a", "b/c", true),
            ("limit=1&after_id=b%2Fc", "d", false),
            ("after_id=d", "", false),
            ("before_id=d&limit=1", "b/c", true),
            ("before_id=d", "a b/c", false),
            ("limit=1000&x", "a b/c d", false),
        ] {
            assert_eq!(ids(query).unwrap(), (expected.to_string(), more), "{query}");
        }
        for query in ["limit=0", "limit=1001", "limit=x", "after_id=nope", "before_id="] {
            assert!(ids(query).is_err(), "{query}");
        }
    }
}
