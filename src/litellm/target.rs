//! The server and the key that an entry of `model_list` means, as LiteLLM would find them.
//!
//! Knows the rules of one entry; `sources` knows where to look, and `providers` knows the meaning of each prefix.

use super::ImportError;
use super::providers::{CLOUD_KEYS, OPENAI_KEY, Provider, read_url};
use super::report::join;
use super::sources::{ADDRESSES, FoundSetting, NamedAddresses, REFERENCE, Unset};
use super::upstream::SettingText;
use super::yaml::Node;
use crate::config;

/// The note on a key of a cloud that is not sent to a server which is only compatible with it.
pub(super) const WITHOUT_KEY: &str = "no key is sent, where LiteLLM would send";

/// The server that an entry's requests go to.
pub(super) struct ModelTarget<'n> {
    pub(super) url: SettingText,
    /// The path of the key that gives the address; `None` if no key of the file does.
    pub(super) address_path: Option<String>,
    pub(super) key: ListedKey<'n>,
    pub(super) flavour: Option<&'static str>,
    /// True if it is asked by the Messages API.
    pub(super) speaks_messages: bool,
    /// For the report: additional notes on the address, each beginning with a semicolon.
    pub(super) notes: String,
    /// The variable that should hold the address, if it is not set.
    pub(super) unset: Option<Unset>,
    /// The variable whose value in `environment_variables` is the address, if there is one.
    pub(super) taken_from: Option<String>,
}

/// The key of an entry.
pub(super) enum ListedKey<'n> {
    /// The key that the file gives.
    Given(FoundSetting<'n>),
    /// The variable that may hold the key.
    Variable(&'static str),
    None,
}

/// The place that an address comes from.
enum AddressSource<'n> {
    File(FoundSetting<'n>),
    Variable(&'static str),
    Default,
}

/// The target of the entry with these `litellm_params`, or the reason why the entry cannot be served.
pub(super) fn read<'n>(
    params: &'n Node,
    path: &str,
    provider: &Provider,
    sources: NamedAddresses<'n>,
) -> Result<Result<ModelTarget<'n>, String>, ImportError> {
    let (url, origin) = match address(params, path, provider, sources)? {
        Ok(found) => found,
        Err(why) => return Ok(Err(why)),
    };
    let value = sources.value(&url);
    let outside = value.as_deref().and_then(config::host_outside);
    let unset = match (&origin, &url, &value) {
        (AddressSource::File((key, node)), SettingText::Environment(variable), None) => {
            Some(Unset { line: node.place.line, key: key.clone(), variable: variable.clone() })
        }
        (AddressSource::Variable(name), SettingText::Environment(_), None) => {
            sources.dangling(name).map(|(variable, node)| {
                let key = join("environment_variables", name);
                Unset { line: node.place.line, key, variable }
            })
        }
        _ => None,
    };
    let (key, on_the_key) = key(params, path, provider, &origin, sources);
    let mut notes = match &origin {
        AddressSource::Variable(name) => format!("; {name} holds its address"),
        AddressSource::Default if !provider.addresses.is_empty() => {
            format!("; not set: {}", provider.addresses.join(", "))
        }
        _ => String::new(),
    };
    notes.push_str(&on_the_key);
    if let Some(unset) = &unset {
        notes.push_str(&format!("; {} is not set here", unset.variable));
    }
    if let Some(host) = outside {
        notes.push_str("; ");
        notes.push_str(&config::leaves_the_lan(host));
    }
    // Only the default address is the real OpenAI. A variable may lead to another server; it is asked which kind it is.
    let is_openai = provider.prefix == "openai" && matches!(origin, AddressSource::Default);
    let asked = match &origin {
        AddressSource::File((_, node)) => node.text().and_then(|text| text.strip_prefix(REFERENCE)),
        AddressSource::Variable(name) => Some(*name),
        AddressSource::Default => None,
    };
    let taken_from = asked.filter(|_| matches!(url, SettingText::Literal(_))).map(str::to_owned);
    let address_path = match origin {
        AddressSource::File((path, _)) => Some(path),
        AddressSource::Variable(_) | AddressSource::Default => None,
    };
    let flavour = if is_openai { Some("openai") } else { provider.flavour };
    let speaks_messages = provider.speaks_messages;
    Ok(Ok(ModelTarget { url, address_path, key, flavour, speaks_messages, notes, unset, taken_from }))
}

fn address<'n>(
    params: &'n Node,
    path: &str,
    provider: &Provider,
    sources: NamedAddresses<'n>,
) -> Result<Result<(SettingText, AddressSource<'n>), String>, ImportError> {
    if let Some(found) = sources.find(params, path, &ADDRESSES).or(sources.address_for_all()) {
        let url = match read_url(found.1, provider)? {
            // The file may also hold the value of this variable.
            SettingText::Environment(name) => {
                of_variable(&name, provider, sources, found.1)?.unwrap_or(SettingText::Environment(name))
            }
            url @ SettingText::Literal(_) => url,
        };
        return Ok(Ok((url, AddressSource::File(found))));
    }
    for &name in &provider.addresses {
        if let Some(url) = of_variable(name, provider, sources, params)? {
            return Ok(Ok((url, AddressSource::Variable(name))));
        }
    }
    // The file says that the address is in a variable, so the provider's own address outside of this network is not
    // meant.
    if provider.url.is_none_or(|url| config::host_outside(url).is_some()) {
        for &name in &provider.addresses {
            if let Some((variable, _)) = sources.dangling(name) {
                return Ok(Ok((SettingText::Environment(variable), AddressSource::Variable(name))));
            }
        }
    }
    Ok(match (provider.url, sources.missing_credential(params)) {
        (_, Some(name)) => Err(format!(
            "its litellm_credential_name is {name:?}, which credential_list does not have: add it there, or add api_base: http://HOST:PORT/v1"
        )),
        (Some(url), None) => Ok((SettingText::Literal(url.to_owned()), AddressSource::Default)),
        (None, None) => {
            Err(format!("{}/ without an api_base: add api_base: http://HOST:PORT/v1", provider.prefix))
        }
    })
}

/// The address that a variable holds, if it is set; an error for an invalid address names the place of `node`.
fn of_variable(
    name: &str,
    provider: &Provider,
    sources: NamedAddresses<'_>,
    node: &Node,
) -> Result<Option<SettingText>, ImportError> {
    let Some(found) = sources.variable(name) else { return Ok(None) };
    let value = sources.value(&found).unwrap_or_default();
    if let Err(why) = config::base_url(&value) {
        return Err(node.error(format!("{name}: {why}; expected http://HOST:PORT/v1")));
    }
    Ok(Some(match found {
        SettingText::Literal(_) => SettingText::Literal(provider.base_of(&value)),
        found @ SettingText::Environment(_) => found,
    }))
}

/// The key; and a note if LiteLLM would send a key that sparkgap does not send.
fn key<'n>(
    params: &'n Node,
    path: &str,
    provider: &Provider,
    origin: &AddressSource<'n>,
    sources: NamedAddresses<'n>,
) -> (ListedKey<'n>, String) {
    if let Some(found) = sources.find(params, path, &["api_key"]).or(sources.key_for_all()) {
        return (ListedKey::Given(found), String::new());
    }
    let is_set = |variable: &&&str| sources.given(variable).is_some() || sources.is_set(variable);
    let Some(&variable) = provider.keys.iter().find(is_set).or(provider.keys.first()) else {
        return (ListedKey::None, String::new());
    };
    let is_given = sources.given(variable).is_some();
    let is_meant = match origin {
        AddressSource::File(_) => is_given || !CLOUD_KEYS.contains(&variable) && sources.is_set(variable),
        AddressSource::Variable(_) if variable == OPENAI_KEY => true,
        // The provider's own cloud wants its key, which may be set where the service runs.
        AddressSource::Default if provider.url.is_some_and(|url| config::host_outside(url).is_some()) => true,
        AddressSource::Variable(_) | AddressSource::Default => is_given || sources.is_set(variable),
    };
    if is_meant {
        let note = match origin {
            AddressSource::Default => format!("; it gets the key in {variable}"),
            AddressSource::File(_) | AddressSource::Variable(_) => String::new(),
        };
        (ListedKey::Variable(variable), note)
    } else if CLOUD_KEYS.contains(&variable) {
        let note =
            format!("; {WITHOUT_KEY} {variable}: add api_key: os.environ/{variable} if the server wants it");
        (ListedKey::None, note)
    } else {
        (ListedKey::None, String::new())
    }
}
