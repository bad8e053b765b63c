//! The alias table: finds the alias for a model name.
//!
//! Knows patterns and names only. The caller knows which upstreams exist and which models they serve.

/// An upstream that an alias names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasMember {
    /// The upstream's name.
    pub upstream: String,
    /// The model to ask it for, if that is another one than the alias's.
    pub model: Option<String>,
}

impl AliasMember {
    /// A member that is asked for the alias's model.
    pub fn new(upstream: impl Into<String>) -> Self {
        AliasMember { upstream: upstream.into(), model: None }
    }
}

/// One line of the alias table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// A model name as the client sends it; `*` matches any run of characters.
    pub pattern: String,
    /// The upstreams that share the requests; empty if the owner left the choice open.
    pub members: Vec<AliasMember>,
    /// The upstreams that get requests while no member can take them, in this order.
    pub backup: Vec<AliasMember>,
    /// The model to ask them for; `None`: each upstream's own first one.
    pub model: Option<String>,
}

impl Alias {
    /// The model that a member is asked for, if the alias names one.
    pub fn model_of<'a>(&'a self, member: &'a AliasMember) -> Option<&'a str> {
        member.model.as_deref().or(self.model.as_deref())
    }
}

/// Claude Code puts this mark behind a model's name to say that its window has a million tokens. The mark does not belong
/// to the name.
const WINDOW_MARK: &str = "[1m]";

/// The name without the mark for a window of a million tokens.
pub fn without_window_mark(model: &str) -> &str {
    model.strip_suffix(WINDOW_MARK).unwrap_or(model)
}

/// The first alias whose pattern matches `model`. A name with the mark for a large window stands for the plain name, unless
/// an alias names the mark.
pub fn find<'t>(aliases: &'t [Alias], model: &str) -> Option<&'t Alias> {
    let plain = without_window_mark(model);
    let names_mark = |alias: &&Alias| alias.pattern.ends_with(WINDOW_MARK) && matches(&alias.pattern, model);
    let marked = if plain == model { None } else { aliases.iter().find(names_mark) };
    marked.or_else(|| aliases.iter().find(|alias| matches(&alias.pattern, plain)))
}

/// True if the pattern, with `*` as a wildcard, matches the whole of `name`. Linear in the length of `name` for each
/// `*`.
pub fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("claude", "claude", true),
            ("claude", "claude-x", false),
            ("claude-*", "claude-x", true),
            ("claude-*", "claude-", true),
            ("claude-*", "claude", false),
            ("claude-*haiku*", "claude-3-haiku-2024", true),
            ("claude-*haiku*", "claude-3-opus", false),
            ("*", "", true),
            ("*", "anything/at:all", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*ab*ab", "ab", false),
            ("*ab*ab", "xabyab", true),
            ("", "", true),
            ("", "x", false),
            ("**", "x", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn the_first_match_wins() {
        let alias = |pattern: &str, upstream: &str| Alias {
            pattern: pattern.into(),
            members: vec![AliasMember::new(upstream)],
            backup: Vec::new(),
            model: None,
        };
        let table = [alias("claude-*", "a"), alias("*", "b")];
        let found = |model| find(&table, model).map(|alias| alias.members[0].upstream.as_str());
        assert_eq!(found("claude-x"), Some("a"));
        assert_eq!(found("gpt"), Some("b"));
        assert_eq!(find(&table[..1], "gpt"), None);
    }

    #[test]
    fn a_mark_for_a_large_window_does_not_belong_to_the_name() {
        let alias = |pattern: &str| Alias {
            pattern: pattern.into(),
            members: Vec::new(),
            backup: Vec::new(),
            model: None,
        };
        let table = [alias("planner"), alias("big"), alias("big[1m]"), alias("*")];
        let found = |model| find(&table, model).map(|alias| alias.pattern.as_str());
        for (model, pattern) in [
            ("planner[1m]", "planner"),
            ("big[1m]", "big[1m]"),
            ("big", "big"),
            ("other[1m]", "*"),
            ("planner[2m]", "*"),
        ] {
            assert_eq!(found(model), Some(pattern), "{model}");
        }
        assert_eq!(without_window_mark("[1m]"), "");
    }
}
