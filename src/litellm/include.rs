//! `include:` — the files that belong to a configuration, merged as LiteLLM merges them: lists are extended, any other
//! value replaces the one before.
//!
//! Reads no file itself: a function that does is an argument.

use std::rc::Rc;

use super::ImportError;
use super::yaml::{self, Content, Node, ParsedFile, RepeatedKey};

/// The most included files.
const FILES_MAX: usize = 64;

/// The key that names the files.
pub(super) const INCLUDE: &str = "include";

/// Returns the text of the file at a path; `Err` with the reason if it cannot be read.
pub type ReadInclude<'v> = &'v dyn Fn(&str) -> Result<String, String>;

/// A configuration with its included files.
pub(super) struct WholeFile {
    pub(super) root: Node,
    pub(super) repeated: Vec<RepeatedKey>,
    /// The paths of all files: the main one, then the included ones in the order of reading.
    pub(super) files: Vec<String>,
}

/// Adds everything that a parsed file of `bytes` bytes includes. `main` is its path, by which those of the others are
/// found.
///
/// # Errors
/// An included file is not YAML or cannot be read, `include` is not a list of paths, or it names more than 64 files or 1 MiB.
pub(super) fn read(
    (mut root, mut repeated): ParsedFile,
    mut bytes: usize,
    main: &str,
    read: ReadInclude<'_>,
) -> Result<WholeFile, ImportError> {
    let mut files = vec![main.to_owned()];
    let mut pending = entries(&root, main)?;
    pending.reverse();
    while let Some((entry, declared_in, node)) = pending.pop() {
        let (near, at_root) = (beside(&declared_in, &entry), beside(main, &entry));
        if files.contains(&near) {
            continue;
        }
        // As LiteLLM does: a file beside the one that names it, otherwise one beside the main file.
        let (path, found) = match read(&near) {
            Err(_) if at_root != near => (at_root.clone(), read(&at_root)),
            found => (near, found),
        };
        if files.contains(&path) {
            continue;
        }
        let text = found
            .map_err(|why| node.error(format!("include: {path}: {why}; correct the path, or remove it")))?;
        bytes += text.len();
        if files.len() > FILES_MAX || bytes > yaml::SIZE_MAX {
            let limit = format!("include: more than {FILES_MAX} files or {} bytes in all", yaml::SIZE_MAX);
            return Err(node.error(limit));
        }
        files.push(path.clone());
        let (included, more) = yaml::parse(&text, Some(&Rc::from(path.as_str())))?;
        repeated.extend(more);
        let next = entries(&included, &path)?;
        merge(&mut root, included)?;
        // Files that an included one names come after those that are named already.
        pending.splice(0..0, next.into_iter().rev());
    }
    Ok(WholeFile { root, repeated, files })
}

/// The paths under `include`, each with the path of the file that names it, and the node for errors.
fn entries(root: &Node, path: &str) -> Result<Vec<(String, String, Node)>, ImportError> {
    let Some(include) = root.get(INCLUDE).filter(|node| !node.is_null()) else { return Ok(Vec::new()) };
    let form = "include must be a list of paths, such as [models.yaml]";
    let Content::List(items) = &include.content else { return Err(include.error(form)) };
    let entry = |item: &Node| match item.text() {
        Some(text) => Ok((text.to_owned(), path.to_owned(), item.clone())),
        None => Err(item.error(form)),
    };
    items.iter().map(entry).collect()
}

/// The path of `entry` in the folder of `file`.
fn beside(file: &str, entry: &str) -> String {
    match file.rsplit_once('/') {
        Some((folder, _)) if !entry.starts_with('/') => {
            format!("{folder}/{}", entry.trim_start_matches("./"))
        }
        _ => entry.trim_start_matches("./").to_owned(),
    }
}

fn merge(root: &mut Node, included: Node) -> Result<(), ImportError> {
    let wrong = included.error("expected a map, as in the file that includes this one");
    let (Content::Map(base), Content::Map(more)) = (&mut root.content, included.content) else {
        return Err(wrong);
    };
    for (key, value) in more {
        if key == INCLUDE {
            continue;
        }
        match (base.iter_mut().find(|(other, _)| *other == key).map(|(_, node)| node), value) {
            (
                Some(Node { content: Content::List(items), .. }),
                Node { content: Content::List(mut more), .. },
            ) => {
                items.append(&mut more);
            }
            (Some(node), value) => *node = value,
            (None, value) => base.push((key, value)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(main: &str, files: &[(&str, &str)]) -> Result<WholeFile, String> {
        let find = |path: &str| {
            let found = files.iter().find(|(name, _)| *name == path);
            found.map(|(_, text)| (*text).to_owned()).ok_or_else(|| "no such file".to_owned())
        };
        let parsed = yaml::parse(main, None).map_err(|error| error.to_string())?;
        read(parsed, main.len(), "/etc/main.yaml", &find).map_err(|error| error.to_string())
    }

    fn list(whole: &WholeFile, key: &str) -> Vec<String> {
        let Content::List(items) = &whole.root.get(key).unwrap().content else { panic!("no list") };
        items.iter().map(|item| item.text().unwrap().to_owned()).collect()
    }

    #[test]
    fn lists_are_extended_and_other_values_replaced() {
        let main = "include: [a.yaml, ./sub/b.yaml]\nl: [1]\ns: {x: 1}\n";
        let files = [
            ("/etc/a.yaml", "include: [c.yaml]\nl: [2]\ns: {y: 1}\n"),
            ("/etc/sub/b.yaml", "include: [d.yaml, ../etc/none]\nl: [3]\n"),
            ("/etc/c.yaml", "include: [a.yaml]\nl: [4]\nnew: 1\n"),
            ("/etc/d.yaml", "l: [5]\n"),
            ("/etc/sub/../etc/none", "{}"),
        ];
        let whole = whole(main, &files).unwrap();
        assert_eq!(list(&whole, "l"), ["1", "2", "3", "4", "5"]);
        assert!(whole.root.get("s").unwrap().get("x").is_none() && whole.root.get("new").is_some());
        assert_eq!(whole.files.len(), 6);
    }

    #[test]
    fn mistakes_name_their_file() {
        let missing = whole("include: [a.yaml]\n", &[]).err().unwrap();
        assert!(missing.starts_with("line 1, column 11: include: /etc/a.yaml: no such file"), "{missing}");
        let broken = whole("include: [a.yaml]\n", &[("/etc/a.yaml", "x: 1\ny: [\n")]).err().unwrap();
        assert!(broken.starts_with("/etc/a.yaml: line ") && broken.contains("not YAML"), "{broken}");
        for (main, file) in
            [("include: a.yaml\n", "{}"), ("include: [[a]]\n", "{}"), ("include: [a.yaml]\n", "[1]")]
        {
            assert!(whole(main, &[("/etc/a.yaml", file)]).is_err(), "{main}");
        }
        assert!(
            whole("include: [/etc/main.yaml]\n", &[]).is_ok(),
            "a file that includes itself is read once"
        );
        let many: Vec<String> = (0..70).map(|i| format!("f{i}.yaml")).collect();
        let paths: Vec<String> = many.iter().map(|name| format!("/etc/{name}")).collect();
        let files: Vec<(&str, &str)> = paths.iter().map(|path| (path.as_str(), "{a: 1}")).collect();
        assert!(
            whole(&format!("include: [{}]\n", many.join(", ")), &files)
                .err()
                .unwrap()
                .contains("more than 64")
        );
    }
}
