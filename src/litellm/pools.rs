//! The aliases of the file: the upstreams that share the requests for each name, and those that wait behind them.
//!
//! | LiteLLM | here |
//! |---|---|
//! | entries of one `model_name` | the pool of an alias; those of a higher `order` and those without weight are its backups (`share`) |
//! | `fallbacks`, `default_fallbacks`, and theirs | further backups, in that order |
//! | `context_window_fallbacks` | names for `on_error` |
//!
//! An alias names an upstream only once. A second model of the same server gets an upstream of its own with the same
//! address.

use std::collections::{BTreeMap, BTreeSet};

use super::KeyVerdict::{self, Ignored, Mapped, Unsupported};
use super::models::{Group, ImportedModel, Models};
use super::report::Report;
use super::router::Routes;
use super::share::{ORDER_ELSEWHERE, ranked};
use super::upstream::ImportedUpstream;

/// The most upstreams that share a name.
const MEMBERS_MAX: usize = 64;

/// The most backups of a name. Clients do not wait for more.
const BACKUPS_MAX: usize = 32;

/// The note on a fallback.
const FALLBACK: &str = "a backup: asked while no upstream before it can answer, and for a request that they failed; not after a 4xx";

/// An upstream of an alias.
#[derive(Clone, Debug)]
pub(super) struct ImportedMember {
    pub(super) upstream: usize,
    pub(super) model: String,
    /// The group and the entry that it comes from.
    pub(super) entry: (usize, usize),
    /// The index of the upstream that another model of the server has, or its own.
    server: usize,
}

/// A line of the alias table.
#[derive(Clone, Debug)]
pub(super) struct ImportedAlias {
    pub(super) name: String,
    pub(super) members: Vec<ImportedMember>,
    pub(super) backup: Vec<ImportedMember>,
    /// The names that follow if the prompt is too long.
    pub(super) wider: Vec<String>,
}

/// The place of an entry in the alias of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryPlace {
    Member,
    /// Its place among the backups, from 1.
    Backup(usize),
    /// The alias has the same server and model already.
    Twice,
    /// The alias is full.
    Beyond,
}

/// The alias table in its order: other names, then exact names, then patterns.
pub(super) fn aliases(models: &mut Models, routes: &Routes, report: &mut Report) -> Vec<ImportedAlias> {
    let order = names_in_order(models, routes);
    let Models { groups, upstreams, .. } = models;
    let name_of = |i: usize| groups.get(i).map_or("", |group| group.name.as_str());
    // The line of each group. Other names of it are copies.
    let mut lines: BTreeMap<usize, ImportedAlias> = BTreeMap::new();
    let mut aliases = Vec::new();
    // Each group with each fallback of its that has become a backup.
    let mut used = BTreeSet::new();
    for (name, i) in order {
        let line = lines.entry(i).or_insert_with(|| {
            let wider = routes.overflow.get(i).into_iter().flatten();
            let wider = wider.map(|i| name_of(*i).to_owned()).collect();
            let (name, members, backup) = Default::default();
            let mut alias = ImportedAlias { name, members, backup, wider };
            let places = alias.add_own(groups, i, upstreams);
            if let Some(group) = groups.get(i) {
                report_entries(group, &places, report);
            }
            for &next in routes.fallbacks.get(i).into_iter().flatten() {
                if alias.add_fallback(groups, next, upstreams) {
                    used.extend([(Some(i), next), (None, next)]);
                }
            }
            alias
        });
        let name = name.unwrap_or(name_of(i)).to_owned();
        aliases.push(ImportedAlias { name, ..line.clone() });
    }
    for target in &routes.targets {
        let (verdict, note) = match used.contains(&(target.of, target.group)) {
            true => (Mapped, FALLBACK),
            false => (Ignored, "adds no upstream: the same servers and models are in line already"),
        };
        report.mark(target.path.as_str(), verdict, note);
    }
    aliases
}

/// The names of the table, each with its group; `None`: the group's own name. A group that was made for a name that a
/// pattern covers needs a line only if something follows it.
fn names_in_order<'r>(models: &Models, routes: &'r Routes) -> Vec<(Option<&'r str>, usize)> {
    let others = routes.aliases.iter().map(|(name, group)| (Some(name.as_str()), *group));
    let is_exact = |i: &usize| {
        // A group that answers for a name of the file is in the table of other names already.
        let stands_in = |(name, group): &(String, usize)| {
            group == i && models.groups.get(*i).is_some_and(|it| it.made_up && it.name == *name)
        };
        if routes.aliases.iter().any(stands_in) {
            return false;
        }
        let group = models.groups.get(*i).filter(|group| !group.is_pattern());
        group.is_some_and(|group| !group.made_up || routes.after(*i).next().is_some())
    };
    let own = (0..models.groups.len()).filter(is_exact).chain(models.patterns());
    others.chain(own.map(|group| (None, group))).collect()
}

impl ImportedAlias {
    /// Its members, then its backups.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &ImportedMember> {
        self.members.iter().chain(&self.backup)
    }

    pub(super) fn is_pattern(&self) -> bool {
        self.name.contains('*')
    }

    /// Adds the entries of the alias's own group. Returns each entry's place.
    fn add_own(
        &mut self,
        groups: &[Group],
        i: usize,
        upstreams: &mut Vec<ImportedUpstream>,
    ) -> Vec<(usize, EntryPlace)> {
        let Some(group) = groups.get(i) else { return Vec::new() };
        let add = |(at, rank): (usize, usize)| {
            let entry = group.entries.get(at)?;
            let member = ImportedMember::new(entry, own_model(entry, &group.name), (i, at));
            Some((at, self.add(member, rank > 0, upstreams)))
        };
        group.ranked().into_iter().filter_map(add).collect()
    }

    /// Adds the entries of a group that follows. Returns true if one of them was not there yet.
    fn add_fallback(&mut self, groups: &[Group], i: usize, upstreams: &mut Vec<ImportedUpstream>) -> bool {
        let Some(group) = groups.get(i) else { return false };
        let mut is_news = false;
        for (at, _) in group.ranked() {
            let Some(entry) = group.entries.get(at) else { continue };
            let member = ImportedMember::new(entry, entry.model.clone(), (i, at));
            is_news |= matches!(self.add(member, true, upstreams), EntryPlace::Backup(_));
        }
        is_news
    }

    fn add(
        &mut self,
        mut member: ImportedMember,
        is_backup: bool,
        upstreams: &mut Vec<ImportedUpstream>,
    ) -> EntryPlace {
        let of_server = || self.upstreams().filter(|it| it.server == member.server);
        if of_server().any(|it| it.model == member.model) {
            return EntryPlace::Twice;
        }
        let number = of_server().count();
        let (list, max) = match is_backup {
            true => (&mut self.backup, BACKUPS_MAX),
            false => (&mut self.members, MEMBERS_MAX),
        };
        if list.len() >= max {
            return EntryPlace::Beyond;
        }
        member.upstream = again(upstreams, member.server, number);
        list.push(member);
        if is_backup { EntryPlace::Backup(list.len()) } else { EntryPlace::Member }
    }
}

impl ImportedMember {
    fn new(entry: &ImportedModel, model: String, place: (usize, usize)) -> Self {
        ImportedMember { upstream: entry.upstream, server: entry.upstream, model, entry: place }
    }
}

impl Group {
    /// Its entries in the order in which they get requests, with their ranks.
    fn ranked(&self) -> Vec<(usize, usize)> {
        ranked(&self.entries.iter().map(|entry| entry.share).collect::<Vec<_>>())
    }
}

/// The model of an entry in the alias of its own name. If the name has more `*` than the model, LiteLLM asks for the name
/// itself.
fn own_model(entry: &ImportedModel, name: &str) -> String {
    let stars = |text: &str| text.matches('*').count();
    let is_name = (1..stars(name)).contains(&stars(&entry.model));
    if is_name { name.to_owned() } else { entry.model.clone() }
}

/// The upstream with the address and key of `server` for its model of this number, from 0; added if it does not exist yet.
fn again(upstreams: &mut Vec<ImportedUpstream>, server: usize, number: usize) -> usize {
    if number == 0 {
        return server;
    }
    let known = upstreams.iter().position(|other| other.again == Some((server, number)));
    known.unwrap_or_else(|| {
        let Some(first) = upstreams.get(server).cloned() else { return server };
        let name = (number + 1..).map(|n| format!("{}-{n}", first.name));
        let name = name.into_iter().find(|name| upstreams.iter().all(|other| other.name != *name));
        let name = name.unwrap_or_default();
        upstreams.push(ImportedUpstream { name, again: Some((server, number)), ..first });
        upstreams.len() - 1
    })
}

/// Reports what has become of each entry of a group, and of its `order` and `weight`.
fn report_entries(group: &Group, places: &[(usize, EntryPlace)], report: &mut Report) {
    if group.made_up {
        return; // its entries are those of the pattern
    }
    let members = places.iter().filter(|(_, place)| *place == EntryPlace::Member).count();
    for (i, place) in places {
        let Some(entry) = group.entries.get(*i) else { continue };
        let called = &entry.called;
        let (verdict, note) = match place {
            EntryPlace::Member if members == 1 => (Mapped, format!("an alias of {called}")),
            EntryPlace::Member => (Mapped, format!("one of {members} upstreams that share {called}")),
            EntryPlace::Backup(n) => (
                Mapped,
                format!(
                    "backup {n} of {called}: asked while no upstream before it can answer, and for a request that they failed; not after a 4xx"
                ),
            ),
            EntryPlace::Twice => {
                (Ignored, format!("an earlier entry of {called} has the same server and model"))
            }
            EntryPlace::Beyond => (
                Unsupported,
                format!(
                    "left out: a name has at most {MEMBERS_MAX} upstreams that share it and {BACKUPS_MAX} backups"
                ),
            ),
        };
        report.mark(format!("{}.model_name", entry.path), verdict, note.as_str());
        report_share(entry, *place, group.entries.len() == 1, report);
    }
}

/// Reports the effect of an entry's `order` and `weight`; and of its parameters, if it has no place.
fn report_share(entry: &ImportedModel, place: EntryPlace, is_alone: bool, report: &mut Report) {
    let has_weight = entry.share.weight.is_some_and(|weight| weight > 0.0);
    let (order, weight) = match place {
        EntryPlace::Twice | EntryPlace::Beyond => (LEFT_OUT, LEFT_OUT),
        _ if is_alone => (ALONE, ALONE),
        EntryPlace::Backup(_) if has_weight => (BACKUP, NO_SHARES),
        EntryPlace::Backup(_) => (BACKUP, BACKUP),
        EntryPlace::Member => ((Mapped, "the lowest order of its name shares its requests"), NO_SHARES),
    };
    let order = match entry.share.order {
        Some(_) => order,
        None => (Ignored, "not a whole number, so LiteLLM ignores it, too"),
    };
    let elsewhere = if entry.share.has_own_order { (Ignored, "litellm_params.order counts") } else { order };
    let mut mark = |key: &str, (verdict, note): (KeyVerdict, &str)| {
        report.mark(format!("{}.{key}", entry.path), verdict, note);
    };
    mark("litellm_params.order", order);
    mark(ORDER_ELSEWHERE, elsewhere);
    mark("litellm_params.weight", if entry.share.is_weight_wrong { WRONG_WEIGHT } else { weight });
    if matches!(place, EntryPlace::Twice | EntryPlace::Beyond) {
        for tweak in &entry.tweaks {
            let key = if tweak.force { "extra_body" } else { tweak.field.as_str() };
            mark(&format!("litellm_params.{key}"), LEFT_OUT);
        }
    }
}

const LEFT_OUT: (KeyVerdict, &str) = (Ignored, "the entry has no effect, see its model_name");

const ALONE: (KeyVerdict, &str) = (Ignored, "the only entry of its name");

const BACKUP: (KeyVerdict, &str) = (Mapped, "makes the entry a backup, see its model_name");

const WRONG_WEIGHT: (KeyVerdict, &str) =
    (Unsupported, "not a number from 0 up, so the entry has no weight; LiteLLM fails for it");

const NO_SHARES: (KeyVerdict, &str) = (
    Ignored,
    "no shares by weight: of those that share a name, the upstream that answers soonest gets the request",
);
