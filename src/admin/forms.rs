//! `GET /env.sh`, `/env.fish`, `/env.ps1`, `/env.json`: the environment for a machine that has no sparkgap, as a script
//! for its shell, or as a settings file for Claude Code.
//!
//! The text is complete: with the key that the client sent, and without what would lead Claude Code elsewhere. `sparkgap
//! env` writes its own answer with the same parts, after it has looked at the environment and the files of its machine.

use std::fmt::Write as _;

use super::environment::{ClientEnvironment, VARIABLES};
use crate::access::OWN_KEY_HEADER;
use crate::claude_code::{
    DETOURS, FULL_PROMPT_TOKENS, LEAN_PROMPT_TOKENS, PROMPT_VARIABLE, gets_full_prompt,
};
use crate::error::{Error, Kind};
use crate::shell::{EnvForm, Variables, settings_file};
use crate::shown::is_command;

/// The value of `ANTHROPIC_AUTH_TOKEN` if sparkgap needs no key: Claude Code does not start without a token.
pub const ANY_KEY: &str = "local";

/// The variable with further headers for Claude Code's requests.
pub const CUSTOM_HEADERS: &str = "ANTHROPIC_CUSTOM_HEADERS";

/// The variables that say where sparkgap is and which key it gets. `takes_keys`: an upstream gets its clients' own keys, so
/// Claude Code sends the person's key or login, and sparkgap's key beside it.
pub fn own_variables(base_url: String, key: Option<&str>, takes_keys: bool) -> Variables {
    let mut found = vec![("ANTHROPIC_BASE_URL", base_url)];
    if takes_keys {
        found.push(("ANTHROPIC_AUTH_TOKEN", String::new()));
        found.extend(key.map(|key| (CUSTOM_HEADERS, format!("{OWN_KEY_HEADER}: {key}"))));
    } else {
        found.push(("ANTHROPIC_AUTH_TOKEN", key.unwrap_or(ANY_KEY).to_string()));
        found.push(("ANTHROPIC_API_KEY", String::new()));
    }
    found
}

/// True if these variables let Claude Code send the person's own key or login.
pub fn leaves_key(variables: &Variables) -> bool {
    variables.iter().any(|(name, value)| *name == "ANTHROPIC_AUTH_TOKEN" && value.is_empty())
}

/// The variables for clients of OpenAI's protocol, and why.
const OPENAI_VARIABLES: [(&str, &str); 3] = [
    ("OPENAI_BASE_URL", "where sparkgap is, for OpenAI's libraries and most clients"),
    ("OPENAI_API_BASE", "the same for older libraries and aider"),
    ("OPENAI_API_KEY", "the key that sparkgap asks for; any text where it asks for none"),
];

/// True if a request for the environment asks for that of OpenAI's clients: `/env.sh?openai`.
pub fn is_for_openai(query: Option<&str>) -> bool {
    query.unwrap_or_default().split('&').any(|part| part == "openai" || part.starts_with("openai="))
}

/// The variables for clients of OpenAI's protocol. Only the address and the key depend on this server: these clients name
/// their model themselves.
pub fn openai_variables(base_url: &str, key: Option<&str>) -> Variables {
    let [address, old_address, secret] = OPENAI_VARIABLES.map(|(name, _)| name);
    let base = format!("{base_url}/v1");
    vec![(address, base.clone()), (old_address, base), (secret, key.unwrap_or(ANY_KEY).to_string())]
}

/// The environment for clients of OpenAI's protocol in this form.
pub fn write_openai(base_url: &str, form: EnvForm, key: Option<&str>) -> String {
    let variables = openai_variables(base_url, key);
    let text = form.script(&variables, &[]);
    if form == EnvForm::Settings { text } else { text + &comments(&variables) }
}

/// The environment in this form, for a client that sent this key.
///
/// # Errors
/// 502: a server calls its model by a name with control characters, which must not reach a terminal.
pub fn write(told: ClientEnvironment, form: EnvForm, key: Option<&str>) -> Result<String, Error> {
    let ClientEnvironment { base_url, variables: others, mut settings, mut notes, takes_keys } = told;
    let mut variables = own_variables(base_url, key, takes_keys);
    variables.extend(others);
    if let Some((name, _)) = variables.iter().find(|(_, value)| value.contains(is_command)) {
        return Err(Error::new(
            Kind::BadGateway,
            format!(
                "{name} would have control characters: start the model server with a plain name for its model"
            ),
        ));
    }
    // An empty variable counts as not set, and takes away the one that this person's machine may have.
    variables.extend(DETOURS.map(|name| (name, String::new())));
    if form == EnvForm::Settings {
        // The program that this setting names would print the key of another server.
        if !takes_keys {
            settings.push(("apiKeyHelper", "".into()));
        }
        return Ok(settings_file(variables, settings));
    }
    notes.extend(prompt_note(&variables));
    // Other headers of this person's machine stay.
    let header = variables.iter().find(|(name, _)| *name == CUSTOM_HEADERS).cloned();
    let header = header.and_then(|(name, header)| form.add_header(name, &header)).unwrap_or_default();
    let told = comments(&variables);
    variables.retain(|(name, _)| *name != CUSTOM_HEADERS);
    Ok(form.script(&variables, &notes) + &header + &told)
}

/// The names of models that Claude Code is given.
fn model_names(variables: &Variables) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    let given =
        variables.iter().filter(|(name, _)| name.starts_with("ANTHROPIC_") && name.ends_with("_MODEL"));
    for (_, model) in given {
        if !names.contains(&model.as_str()) {
            names.push(model);
        }
    }
    names
}

/// A sentence on the names for which Claude Code sends its full system prompt, unless the person has chosen one.
pub fn prompt_note(variables: &Variables) -> Option<String> {
    let names: Vec<&str> = model_names(variables).into_iter().filter(|name| gets_full_prompt(name)).collect();
    if names.is_empty() || variables.iter().any(|(name, _)| *name == PROMPT_VARIABLE) {
        return None;
    }
    Some(format!(
        "Claude Code sends its full system prompt, about {FULL_PROMPT_TOKENS} tokens, for {}: --prompt lean, or ?prompt=lean for /env.sh, sends the one of {LEAN_PROMPT_TOKENS}",
        names.join(", ")
    ))
}

/// A comment on each of these variables, for any shell. Comments stand at the end, so that they take nothing away if the
/// lines are joined.
pub fn comments(variables: &Variables) -> String {
    let mut text = String::new();
    for (name, why) in VARIABLES
        .iter()
        .chain(&OPENAI_VARIABLES)
        .filter(|(name, _)| variables.iter().any(|(told, _)| told == name))
    {
        let _ = writeln!(text, "# {name}: {why}");
    }
    let names = model_names(variables);
    if !names.is_empty() && !variables.iter().any(|(name, _)| *name == PROMPT_VARIABLE) {
        let of = |is_full: bool| {
            let names = names.iter().filter(|name| gets_full_prompt(name) == is_full).copied();
            names.collect::<Vec<_>>().join(", ")
        };
        for (size, tokens, names) in
            [("lean", LEAN_PROMPT_TOKENS, of(false)), ("full", FULL_PROMPT_TOKENS, of(true))]
        {
            if !names.is_empty() {
                let _ = writeln!(
                    text,
                    "# {PROMPT_VARIABLE}: not set; Claude Code sends its {size} system prompt, about {tokens} tokens, for {names}"
                );
            }
        }
    }
    text
}
