//! The relations of groups: their other names, and the fallbacks to try when they fail.
//!
//! Knows LiteLLM's rules of precedence. Knows nothing of Lua.

use super::KeyVerdict;
use super::models::{Group, ImportedModel, Models};
use super::report::{Report, join};
use super::yaml::{Content, Node};
use crate::route;

/// The most groups to try after the first, and the most entries of one list of fallbacks. Clients do not wait for more.
const FALLBACKS_MAX: usize = 32;

/// The routes of requests, by indices into the groups.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Other names, each with its group. They take precedence over the groups' own names.
    pub(super) aliases: Vec<(String, usize)>,
    /// For each group, its fallbacks after an error.
    pub(super) fallbacks: Vec<Vec<usize>>,
    /// For each group, its fallbacks if the prompt is too long.
    pub(super) overflow: Vec<Vec<usize>>,
    /// Each target of `fallbacks` and `default_fallbacks` whose effect is reported once all upstreams are in line.
    pub(super) targets: Vec<FallbackTarget>,
}

/// One model of a list of fallbacks.
#[derive(Clone, Debug)]
pub(super) struct FallbackTarget {
    /// The group that fails; `None`: each group that has no line of its own (`*`).
    pub(super) of: Option<usize>,
    /// The group that follows it.
    pub(super) group: usize,
    /// For the report: its path.
    pub(super) path: String,
}

/// One line of `fallbacks`.
struct FallbackLine {
    of: Option<usize>,
    /// The name of an entry that was left out, if `of` is a group that answers for it.
    stands_in: Option<String>,
    targets: Vec<FallbackTarget>,
}

impl Routes {
    pub(super) fn read(root: &Node, models: &mut Models, report: &mut Report) -> Routes {
        let mut aliases = read_aliases(root, models, report);
        let mut general = read_fallbacks(root, "fallbacks", models, report);
        read_default_fallbacks(root, models, &mut general, report);
        let overflow = read_fallbacks(root, "context_window_fallbacks", models, report);
        aliases.extend(general.iter().filter_map(|line| Some((line.stands_in.clone()?, line.of?))));
        let (by_default, answered) = models.stand_in_by_default(&general, report);
        aliases.extend(by_default);
        let direct = per_group(&general, models.groups.len());
        let overflow = per_group(&overflow, models.groups.len());
        let fallbacks = (0..direct.len()).map(|group| chain(group, &direct)).collect();
        // The verdict on a fallback that answers for a name is known already.
        let targets = general.into_iter().flat_map(|line| line.targets);
        let targets = targets.filter(|target| answered.as_ref() != Some(&target.path)).collect();
        Routes { aliases, fallbacks, overflow, targets }
    }

    /// The groups that follow a group after an error, and those that follow it if the prompt is too long.
    pub(super) fn after(&self, group: usize) -> impl Iterator<Item = usize> + '_ {
        let of = |lists: &'_ [Vec<usize>]| lists.get(group).cloned().unwrap_or_default();
        of(&self.fallbacks).into_iter().chain(of(&self.overflow))
    }
}

/// The fallbacks of a group, then the fallbacks of these fallbacks, each group once.
fn chain(group: usize, direct: &[Vec<usize>]) -> Vec<usize> {
    fn walk(group: usize, direct: &[Vec<usize>], seen: &mut Vec<usize>) {
        for &next in direct.get(group).into_iter().flatten() {
            if !seen.contains(&next) && seen.len() <= FALLBACKS_MAX {
                seen.push(next);
                walk(next, direct, seen);
            }
        }
    }
    let mut seen = vec![group];
    walk(group, direct, &mut seen);
    seen.remove(0);
    seen
}

/// The fallbacks of each group: those of its own line, otherwise those of the line of `*`.
fn per_group(lines: &[FallbackLine], groups: usize) -> Vec<Vec<usize>> {
    let line_of = |group: Option<usize>| lines.iter().find(|line| line.of == group);
    (0..groups)
        .map(|group| {
            let line = line_of(Some(group)).or_else(|| line_of(None));
            let targets = line.into_iter().flat_map(|line| &line.targets).map(|target| target.group);
            targets.filter(|to| *to != group).collect()
        })
        .collect()
}

/// The setting `key` with its path: from `router_settings`, otherwise from `litellm_settings`.
fn settings<'n>(root: &'n Node, key: &str, report: &mut Report) -> Option<(String, &'n Node)> {
    let of = |section: &str| {
        let node = root.get(section)?.get(key)?;
        Some((join(section, key), node))
    };
    let (router, litellm) = (of("router_settings"), of("litellm_settings"));
    for (path, _) in [&router, &litellm].into_iter().flatten().filter(|(_, node)| node.is_null()) {
        report.mark(path.as_str(), KeyVerdict::Ignored, "empty");
    }
    let router = router.filter(|(_, node)| !node.is_null());
    let litellm = litellm.filter(|(_, node)| !node.is_null());
    if let (Some((winner, _)), Some((path, _))) = (&router, &litellm) {
        report.mark(path.as_str(), KeyVerdict::Ignored, format!("{winner} wins over it, as in LiteLLM"));
    }
    router.or(litellm)
}

fn read_fallbacks(root: &Node, key: &str, models: &mut Models, report: &mut Report) -> Vec<FallbackLine> {
    let Some((path, node)) = settings(root, key, report) else { return Vec::new() };
    let mut lines = Vec::new();
    // LiteLLM fails for a map in place of the list; its meaning is clear all the same.
    let items = match &node.content {
        Content::List(items) => items.as_slice(),
        Content::Map(_) => std::slice::from_ref(node),
        Content::Scalar { .. } => {
            report.mark(path, KeyVerdict::Unsupported, FORM);
            return lines;
        }
    };
    if items.is_empty() {
        report.mark(path.as_str(), KeyVerdict::Ignored, "empty");
    }
    for (i, item) in items.iter().enumerate() {
        if item.entries().is_empty() {
            report.mark(format!("{path}[{i}]"), KeyVerdict::Unsupported, FORM);
        }
        let below =
            if matches!(node.content, Content::Map(_)) { path.clone() } else { format!("{path}[{i}]") };
        for (name, targets) in item.entries() {
            let path = join(&below, name);
            let group = models.resolve(name);
            let mut of = group.filter(|_| name != "*");
            let mut targets = read_targets((&path, of), targets, models, report);
            let mut stands_in = None;
            if group.is_none() && name != "*" {
                of = if key == "fallbacks" { models.stand_in(name, &mut targets, report) } else { None };
                if of.is_none() {
                    for path in targets.into_iter().map(|target| target.path).chain([path]) {
                        report.mark(path, KeyVerdict::Unsupported, no_such_model(name));
                    }
                    continue;
                }
                stands_in = Some(name.clone());
            }
            add_line(FallbackLine { of, stands_in, targets }, &mut lines, report);
        }
    }
    lines
}

/// The form of `fallbacks`.
const FORM: &str = "expected a list such as - MODEL: [OTHER, THIRD]";

fn read_default_fallbacks(
    root: &Node,
    models: &mut Models,
    lines: &mut Vec<FallbackLine>,
    report: &mut Report,
) {
    let Some((path, node)) = settings(root, "default_fallbacks", report) else { return };
    let targets = read_targets((&path, None), node, models, report);
    add_line(FallbackLine { of: None, stands_in: None, targets }, lines, report);
}

/// Adds a line, unless there is one for the same group: LiteLLM takes the first.
fn add_line(line: FallbackLine, lines: &mut Vec<FallbackLine>, report: &mut Report) {
    if lines.iter().all(|other| other.of != line.of) {
        lines.push(line);
        return;
    }
    for target in line.targets {
        report.mark(
            target.path,
            KeyVerdict::Ignored,
            "an earlier line for the same model counts, as in LiteLLM",
        );
    }
}

fn read_targets(
    (path, of): (&str, Option<usize>),
    node: &Node,
    models: &mut Models,
    report: &mut Report,
) -> Vec<FallbackTarget> {
    const LIST: &str = "expected a list of model names such as [OTHER]";
    let mut targets = Vec::new();
    let items = match &node.content {
        Content::List(items) => items.as_slice(),
        // One name counts as a list of one.
        Content::Scalar { .. } => std::slice::from_ref(node),
        Content::Map(_) => {
            report.mark(path, KeyVerdict::Unsupported, LIST);
            return targets;
        }
    };
    for (i, item) in items.iter().enumerate() {
        let path = match &node.content {
            Content::List(_) => format!("{path}[{i}]"),
            Content::Map(_) | Content::Scalar { .. } => path.to_owned(),
        };
        if i >= FALLBACKS_MAX {
            let note = format!("beyond the limit of {FALLBACKS_MAX} fallbacks, so it is not asked");
            report.mark(path, KeyVerdict::Unsupported, note);
            continue;
        }
        match (&item.content, item.text()) {
            (Content::Map(_), _) => {
                report.mark(
                    path,
                    KeyVerdict::Unsupported,
                    "name a model of model_list; other messages or parameters belong in on_error",
                );
            }
            (_, None) => report.mark(path, KeyVerdict::Unsupported, LIST),
            (_, Some(name)) => match models.resolve(name) {
                Some(group) => {
                    let note = "tried in its turn if the prompt is too long, by on_error";
                    report.mark(path.as_str(), KeyVerdict::Mapped, note);
                    targets.push(FallbackTarget { of, group, path });
                }
                None => report.mark(path, KeyVerdict::Unsupported, no_such_model(name)),
            },
        }
    }
    targets
}

fn no_such_model(name: &str) -> String {
    format!("no entry of model_list is called {name}, or it was left out; correct the name")
}

fn read_aliases(root: &Node, models: &mut Models, report: &mut Report) -> Vec<(String, usize)> {
    let mut aliases = Vec::new();
    let Some((path, node)) = settings(root, "model_group_alias", report) else { return aliases };
    if !matches!(node.content, Content::Map(_)) {
        report.mark(path.as_str(), KeyVerdict::Unsupported, "expected a map such as OTHER_NAME: MODEL");
    }
    for (alias, target) in node.entries() {
        let path = join(&path, alias);
        let Some(name) = target.get("model").unwrap_or(target).text() else {
            report.mark(
                path,
                KeyVerdict::Unsupported,
                "expected one model's name; LiteLLM fails for it, too",
            );
            continue;
        };
        if alias.contains('*') || !route::is_name(alias) {
            report.mark(path, KeyVerdict::Unsupported, "a name with a * or a blank at an end; rename it");
            continue;
        }
        match models.resolve(name) {
            Some(group) => {
                report.mark(&path, KeyVerdict::Mapped, format!("an alias of {name}"));
                if target.get("hidden").is_some() {
                    report.mark(join(&path, "hidden"), KeyVerdict::Ignored, "all names are listed");
                }
                aliases.push((alias.clone(), group));
            }
            None => report.mark(path, KeyVerdict::Unsupported, no_such_model(name)),
        }
    }
    aliases
}

impl Models {
    /// The group that serves a name. A name that only a pattern covers gets a group of its own.
    fn resolve(&mut self, name: &str) -> Option<usize> {
        if let Some(group) = self.groups.iter().position(|group| group.name == name) {
            return Some(group);
        }
        let pattern = self.patterns().find_map(|i| {
            let group = self.groups.get(i)?;
            Some((group, route::captures(&group.name, name)?))
        });
        let (group, parts) = pattern?;
        let mut entries = group.entries.clone();
        for entry in &mut entries {
            entry.model = fill(&entry.model, &parts, name);
        }
        Some(self.make_up(name, entries))
    }

    /// Adds a group for a name that no entry has.
    fn make_up(&mut self, name: &str, entries: Vec<ImportedModel>) -> usize {
        self.groups.push(Group { name: name.to_owned(), made_up: true, entries });
        self.groups.len() - 1
    }

    /// The group that answers for a name whose entries were all left out: a copy of its first fallback, which leaves the
    /// list. `None` if the file has no such name, or no fallback of it can be served.
    fn stand_in(
        &mut self,
        name: &str,
        targets: &mut Vec<FallbackTarget>,
        report: &mut Report,
    ) -> Option<usize> {
        self.left_out.iter().find(|(_, left_out, _)| left_out == name)?;
        let first = targets.first()?;
        let (group, path) = (first.group, first.path.clone());
        let entries = self.groups.get(group)?.entries.clone();
        targets.remove(0);
        report.mark(path, KeyVerdict::Mapped, format!("answers for {name}, whose own entry is left out"));
        let of = self.make_up(name, entries);
        targets.iter_mut().for_each(|target| target.of = Some(of));
        Some(of)
    }

    /// The names whose entries were all left out, and that have no fallbacks of their own: the first default fallback answers
    /// for them. Returns these names with their groups, and the path of that fallback. A pattern gets a group alone, which
    /// has its place among the patterns.
    fn stand_in_by_default(
        &mut self,
        lines: &[FallbackLine],
        report: &mut Report,
    ) -> (Vec<(String, usize)>, Option<String>) {
        let mut aliases = Vec::new();
        let mut answered = Vec::new();
        let first = lines.iter().find(|line| line.of.is_none()).and_then(|line| line.targets.first());
        let names = self.left_out.iter().map(|(_, name, _)| name.clone()).collect::<Vec<_>>();
        for name in names.into_iter().filter(|name| route::is_name(name)) {
            let covers = |group: &Group| {
                group.name == name || group.is_pattern() && route::captures(&group.name, &name).is_some()
            };
            let Some(first) = first.filter(|_| !self.groups.iter().any(covers)) else { continue };
            let Some(entries) = self.groups.get(first.group).map(|group| group.entries.clone()) else {
                continue;
            };
            let group = self.make_up(&name, entries);
            answered.push(name.clone());
            if !name.contains('*') {
                aliases.push((name, group));
            }
        }
        let path = first.filter(|_| !answered.is_empty()).map(|first| first.path.clone());
        if let Some(path) = &path {
            let some = answered.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if answered.len() > 3 { ", …" } else { "" };
            let note =
                format!("answers for {some}{more}, whose own entry is left out; and a backup of other names");
            report.mark(path.as_str(), KeyVerdict::Mapped, note);
        }
        (aliases, path)
    }

    /// The groups with a `*` in the order in which LiteLLM tries them: the longest regular expression first.
    pub(super) fn patterns(&self) -> impl Iterator<Item = usize> + use<> {
        let length = |name: &str| -> (usize, usize) {
            let escaped = name.chars().filter(|c| ".-+?()[]{}^$|\\#&~".contains(*c)).count();
            let stars = name.matches('*').count();
            (name.chars().count() + escaped + 3 * stars, escaped + 3 * stars)
        };
        let mut order: Vec<(usize, (usize, usize))> = self
            .groups
            .iter()
            .enumerate()
            .filter(|(_, group)| group.is_pattern())
            .map(|(i, group)| (i, length(&group.name)))
            .collect();
        order.sort_by_key(|(_, length)| std::cmp::Reverse(*length));
        order.into_iter().map(|(i, _)| i)
    }
}

/// Fills in a model as LiteLLM does: if the pattern has more `*` than the model, the name itself is the model.
fn fill(model: &str, parts: &[&str], name: &str) -> String {
    match model.matches('*').count() {
        0 => model.to_owned(),
        stars if parts.len() > stars => name.to_owned(),
        _ => route::fill(model, parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_filled_in_as_litellm_does() {
        assert_eq!(fill("fo::*::static::*", &["bar", "baz"], "x"), "fo::bar::static::baz");
        assert_eq!(fill("fixed", &["bar"], "x"), "fixed");
        assert_eq!(fill("one-*", &["a", "b"], "a-b"), "a-b");
        assert_eq!(fill("*-*", &["a"], "a"), "a-*");
    }

    #[test]
    fn fallback_chains_end() {
        let direct = vec![vec![1, 2], vec![0, 3], vec![1], vec![0]];
        assert_eq!(chain(0, &direct), [1, 3, 2]);
        assert_eq!(chain(3, &direct), [0, 1, 2]);
        let line: Vec<Vec<usize>> = (1..100).map(|i| vec![i]).collect();
        assert_eq!(chain(0, &line).len(), FALLBACKS_MAX);
    }
}
