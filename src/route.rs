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
    /// The model to ask them for; `None`: each upstream's own first one. A `*` in it, as in a member's model, stands for the
    /// text that the `*` at the same place of the pattern matched.
    pub model: Option<String>,
    /// The price of its tokens, for the usage of clients.
    pub price: Option<Price>,
}

/// The price of a million tokens, in millionths of a unit of money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Of a prompt, those that no cache served.
    pub input: u64,
    /// Of a prompt, those that a cache served.
    pub cached: u64,
    /// Of an answer.
    pub output: u64,
}

impl Price {
    /// The cost of a request, in millionths of a unit of money. `prompt` includes the cached tokens.
    pub fn cost(&self, prompt: u64, cached: u64, output: u64) -> u64 {
        let rest = prompt.saturating_sub(cached).saturating_mul(self.input);
        let sum = rest.saturating_add(cached.saturating_mul(self.cached));
        sum.saturating_add(output.saturating_mul(self.output)) / 1_000_000
    }
}

impl Alias {
    /// The model that a member is asked for, if the alias names one, as it is configured.
    pub fn model_of<'a>(&'a self, member: &'a AliasMember) -> Option<&'a str> {
        member.model.as_deref().or(self.model.as_deref())
    }

    /// True if the model that the alias names for all its upstreams may be meant for this member: it names one of its own, or
    /// speaks the protocol of the alias's first upstream. `protocol` tells that of the upstream of a name.
    pub fn fits<P: PartialEq>(&self, member: &AliasMember, protocol: &dyn Fn(&str) -> P) -> bool {
        let Some(first) = self.members.first().filter(|_| member.model.is_none()) else { return true };
        protocol(&first.upstream) == protocol(&member.upstream)
    }

    /// The model that a member, or an upstream that the alias does not name, is asked for when a client asks for `name`.
    /// `None`: the alias names none.
    pub fn model_for(&self, member: Option<&AliasMember>, name: &str) -> Option<String> {
        let model = member.map_or(self.model.as_deref(), |member| self.model_of(member))?;
        let name = if self.pattern.ends_with(WINDOW_MARK) { name } else { without_window_mark(name) };
        Some(fill(model, &captures(&self.pattern, name).unwrap_or_default()))
    }
}

/// Claude Code puts this mark behind a model's name to say that its window has a million tokens. The mark does not belong
/// to the name.
const WINDOW_MARK: &str = "[1m]";

/// The name without the mark for a window of a million tokens.
pub fn without_window_mark(model: &str) -> &str {
    model.strip_suffix(WINDOW_MARK).unwrap_or(model)
}

/// True if clients can ask for a model of this name: it is not empty, has no control characters, and no blank at an end.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.trim() == name && !name.contains(char::is_control)
}

/// The pattern that the writer of a regular expression means; `None` for a pattern of this table. Names of models have
/// neither `^`, `$`, `|` nor a backslash. A point before a `*` may be a part of a name (`gpt-4.*`, `us.anthropic.*`), but
/// not where no letter or digit stands before it, nor twice.
pub fn plain_pattern(pattern: &str) -> Option<String> {
    let points: Vec<usize> = pattern.match_indices(".*").map(|(at, _)| at).collect();
    let is_bare = |at: &usize| {
        !pattern.get(..*at).is_some_and(|before| before.ends_with(|c: char| c.is_alphanumeric()))
    };
    let is_expression =
        pattern.contains(['^', '$', '|', '\\']) || points.len() > 1 || points.iter().any(is_bare);
    is_expression.then(|| {
        let first = pattern.split('|').next().unwrap_or_default().replace(".*", "*");
        first.chars().filter(|c| !"^$\\()".contains(*c)).collect()
    })
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

/// The text of `name` at each `*` of `pattern`; `None`: the name does not match. As in a regular expression, the first `*`
/// takes as much as possible, so the texts between them are sought from the end. Linear in the length of `name`.
pub fn captures<'n>(pattern: &str, name: &'n str) -> Option<Vec<&'n str>> {
    let mut literals = pattern.split('*');
    let rest = name.strip_prefix(literals.next()?)?;
    let Some(last) = literals.next_back() else { return rest.is_empty().then(Vec::new) };
    let mut rest = rest.strip_suffix(last)?;
    let mut parts = Vec::new();
    for literal in literals.rev() {
        let (before, part) = rest.rsplit_once(literal)?;
        parts.push(part);
        rest = before;
    }
    parts.push(rest);
    parts.reverse();
    Some(parts)
}

/// The model with the parts in the place of its `*`, in order. A `*` without a part stays as it is.
pub fn fill(model: &str, parts: &[&str]) -> String {
    let mut pieces = model.split('*');
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    let mut parts = parts.iter();
    for piece in pieces {
        filled.push_str(parts.next().unwrap_or(&"*"));
        filled.push_str(piece);
    }
    filled
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
    fn stars_capture_as_in_a_regular_expression() {
        for (pattern, name, expected) in [
            ("claude-*", "claude-x", Some(vec!["x"])),
            ("*-*", "a-b-c", Some(vec!["a-b", "c"])),
            ("a*b*b", "a1b2b3b", Some(vec!["1b2", "3"])),
            ("**", "x", Some(vec!["x", ""])),
            ("*", "", Some(vec![""])),
            ("a", "a", Some(vec![])),
            ("a*", "b", None),
            ("a*a", "a", None),
            ("*ab*ab", "ab", None),
            ("a", "ab", None),
        ] {
            assert_eq!(captures(pattern, name), expected, "{pattern} {name}");
            assert_eq!(matches(pattern, name), expected.is_some(), "{pattern} {name}");
        }
    }

    #[test]
    fn stars_of_a_model_follow_the_name() {
        let small = AliasMember { model: Some("small-*".into()), ..AliasMember::new("a") };
        for (pattern, model, name, expected) in [
            ("my/*-v*", "x-*_*", "my/big-v2", "x-big_2"),
            ("*", "*", "any/thing[1m]", "any/thing"),
            ("*[1m]", "*-wide", "any[1m]", "any-wide"),
            ("claude-*-*", "q-*", "claude-a-b", "q-a"),
            ("fixed", "*", "fixed", "*"),
            ("claude-*", "plain", "claude-a", "plain"),
            // A name that the pattern does not match, as when a hook chooses the upstream.
            ("claude-*", "q-*", "other", "q-*"),
        ] {
            let alias = Alias {
                pattern: pattern.into(),
                members: vec![AliasMember::new("b"), small.clone()],
                backup: Vec::new(),
                model: Some(model.into()),
                price: None,
            };
            assert_eq!(alias.model_for(alias.members.first(), name).as_deref(), Some(expected), "{pattern}");
            assert_eq!(alias.model_for(None, name).as_deref(), Some(expected), "{pattern}");
            assert!(alias.model_for(Some(&small), name).is_some_and(|model| model.starts_with("small-")));
        }
    }

    #[test]
    fn the_first_match_wins() {
        let alias = |pattern: &str, upstream: &str| Alias {
            pattern: pattern.into(),
            members: vec![AliasMember::new(upstream)],
            backup: Vec::new(),
            model: None,
            price: None,
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
            price: None,
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

    #[test]
    fn a_cost_is_the_sum_of_its_parts() {
        let price = Price { input: 2_000_000, cached: 200_000, output: 10_000_000 };
        assert_eq!(price.cost(1_000_000, 400_000, 100_000), 1_200_000 + 80_000 + 1_000_000);
        assert_eq!(price.cost(10, 20, 0), 4, "more cached tokens than tokens");
        assert_eq!(price.cost(u64::MAX, 0, u64::MAX), u64::MAX / 1_000_000, "no overflow");
    }

    #[test]
    fn a_regular_expression_is_told_from_a_pattern() {
        for (pattern, plain) in [
            ("claude-.*haiku.*", "claude-*haiku*"),
            (".*", "*"),
            (".*haiku", "*haiku"),
            ("^claude-opus$", "claude-opus"),
            ("(opus|sonnet)", "opus"),
            (r"claude-3\.5", "claude-3.5"),
            ("^", ""),
        ] {
            assert_eq!(plain_pattern(pattern).as_deref(), Some(plain), "{pattern}");
        }
        for pattern in
            ["*", "claude-*haiku*", "gpt-4.*", "us.anthropic.*", "a.b", "qwen3:8b", "x (local)", "*[1m]"]
        {
            assert_eq!(plain_pattern(pattern), None, "{pattern}");
        }
    }
}
