//! Parses YAML text into a tree whose nodes know their places in the file.
//!
//! Scalars are read as PyYAML reads them, since LiteLLM uses it: `yes` is true, `none` is a word. Does not know
//! LiteLLM's keys.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::error::{ImportError, Place};

/// The largest file, in bytes. A file of a thousand models has a quarter of this size.
pub const SIZE_MAX: usize = 1024 * 1024;

/// The most nodes of the tree, in which every alias stands for a copy of the value that it names. The limit stops alias
/// bombs. A file of a thousand models has 8,000.
const NODES_MAX: usize = 20_000;

/// The deepest nesting of the tree, which is walked recursively.
const DEPTH_MAX: usize = 64;

/// The most lines that are indented anew, and the most bytes that are parsed to find them: parsing starts again for each.
const INDENTED_LINES_MAX: usize = 1000;
const INDENTED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// More blanks than any block of a file is indented by.
const INDENT: &str = "                                                                                ";

/// A key that a map has twice, of which the last one counts.
#[derive(Clone, Debug)]
pub(super) struct RepeatedKey {
    pub(super) key: String,
    /// The line of the second one, from 1.
    pub(super) line: usize,
}

/// The tree of a file, and the keys that its maps have twice.
pub(super) type ParsedFile = (Node, Vec<RepeatedKey>);

/// One value of the file.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) content: Content,
    /// True if the value has a name (`&name`), so that other places may refer to it.
    pub(super) anchored: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    /// The text as written. `plain` is true without quotes, so that it may mean a number, a boolean or null.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    /// The entries in the order of the file. Every key occurs once.
    Map(Vec<(String, Node)>),
}

/// The meaning of a scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scalar<'n> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'n str),
}

impl Node {
    /// The value under `key`, if this is a map that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(k, _)| k == key).map(|(_, node)| node)
    }

    /// The entries of a map; empty for any other value.
    pub(super) fn entries(&self) -> &[(String, Node)] {
        match &self.content {
            Content::Map(entries) => entries,
            Content::Scalar { .. } | Content::List(_) => &[],
        }
    }

    /// The meaning of the value, if it is a scalar.
    pub(super) fn scalar(&self) -> Option<Scalar<'_>> {
        match &self.content {
            Content::Scalar { text, plain: true } => Some(plain(text)),
            Content::Scalar { text, plain: false } => Some(Scalar::Text(text)),
            Content::List(_) | Content::Map(_) => None,
        }
    }

    /// The text as written, whatever it means, since a key of digits is still a key. `None` for null.
    pub(super) fn text(&self) -> Option<&str> {
        match (&self.content, self.scalar()) {
            (_, None | Some(Scalar::Null)) => None,
            (Content::Scalar { text, .. }, _) => Some(text),
            (Content::List(_) | Content::Map(_), _) => None,
        }
    }

    /// True if a scalar in this value has this text.
    pub(super) fn contains_text(&self, wanted: &str) -> bool {
        match &self.content {
            Content::Scalar { text, .. } => text == wanted,
            Content::List(items) => items.iter().any(|item| item.contains_text(wanted)),
            Content::Map(entries) => entries.iter().any(|(_, item)| item.contains_text(wanted)),
        }
    }

    /// True if the value is null.
    pub(super) fn is_null(&self) -> bool {
        self.scalar() == Some(Scalar::Null)
    }

    /// An error at the place of this value.
    pub(super) fn error(&self, message: impl Into<String>) -> ImportError {
        ImportError::at(self.place.clone(), message)
    }
}

fn plain(text: &str) -> Scalar<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.')) {
        return Scalar::Text(text);
    }
    let digits = text.replace('_', "");
    if let Ok(number) = digits.parse::<i64>() {
        return Scalar::Int(number);
    }
    if let Some(number) = digits.strip_prefix("0x").and_then(|hex| i64::from_str_radix(hex, 16).ok()) {
        return Scalar::Int(number);
    }
    match digits.parse::<f64>() {
        Ok(number) if number.is_finite() && digits.bytes().any(|b| b.is_ascii_digit()) => {
            Scalar::Float(number)
        }
        _ => Scalar::Text(text),
    }
}

/// Parses a file, which must hold one document; `file` is its path if another file includes it.
///
/// PyYAML does not look at the indentation inside braces and brackets. The parser used here does, so that a line which it
/// refuses for that is indented and the text parsed again.
pub(super) fn parse(text: &str, file: Option<&Rc<str>>) -> Result<ParsedFile, ImportError> {
    if text.len() > SIZE_MAX {
        return Err(ImportError::new(format!(
            "the file has {} bytes and the limit is {SIZE_MAX}; is it a LiteLLM configuration?",
            text.len()
        )));
    }
    // A byte order mark does not belong to the text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let read = |text: &str| {
        let (parser, anchors, repeated) = (Parser::new_from_str(text), BTreeMap::new(), Vec::new());
        YamlReader { parser, file: file.cloned(), anchors, nodes: 0, repeated }.document()
    };
    let first = match read(text) {
        Err(error) if error.message.starts_with(BAD_INDENT) => error,
        result => return result,
    };
    let mut lines: Vec<Cow<'_, str>> = text.lines().map(Cow::Borrowed).collect();
    let (mut error, mut bytes) = (first.clone(), 0);
    for _ in 0..INDENTED_LINES_MAX {
        if !error.message.starts_with(BAD_INDENT) || bytes > INDENTED_BYTES_MAX {
            break;
        }
        let Some(line) = error.line.and_then(|line| lines.get_mut(line.checked_sub(1)?)) else { break };
        if line.starts_with(INDENT) {
            break;
        }
        *line = Cow::Owned(format!("{INDENT}{line}"));
        let text = lines.join("\n");
        bytes += text.len();
        match read(&text) {
            Err(next) => error = next,
            result => return result,
        }
    }
    Err(first)
}

/// The words for a line inside braces or brackets that is indented less than the block around them.
const BAD_INDENT: &str = "not YAML: invalid indentation";

struct YamlReader<'t, T: saphyr_parser::Input> {
    parser: Parser<'t, T>,
    file: Option<Rc<str>>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
    repeated: Vec<RepeatedKey>,
}

impl<'t, T: saphyr_parser::Input> YamlReader<'t, T> {
    fn document(mut self) -> Result<ParsedFile, ImportError> {
        let mut root = None;
        loop {
            let (event, place) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                Event::DocumentStart(_) if root.is_some() => {
                    return Err(ImportError::at(
                        place,
                        "a second document begins here (---); LiteLLM reads one: split the file",
                    ));
                }
                Event::DocumentStart(_) => {}
                event => root = Some(self.node(event, place, 0)?),
            }
        }
        let repeated = self.repeated;
        root.map(|root| (root, repeated)).ok_or_else(|| {
            ImportError::new("the file is empty; expected a LiteLLM configuration with a model_list")
        })
    }

    fn next(&mut self) -> Result<(Event<'t>, Place), ImportError> {
        match self.parser.next() {
            Some(Ok((event, span))) => Ok((event, self.place(span.start))),
            Some(Err(error)) => Err(syntax_error(&error, self.place(*error.marker()))),
            None => Ok((Event::StreamEnd, Place { line: 1, column: 1, file: self.file.clone() })),
        }
    }

    fn place(&self, marker: Marker) -> Place {
        Place { line: marker.line(), column: marker.col() + 1, file: self.file.clone() }
    }

    fn node(&mut self, event: Event<'t>, place: Place, depth: usize) -> Result<Node, ImportError> {
        self.count(1, &place)?;
        if depth > DEPTH_MAX {
            return Err(ImportError::at(
                place,
                format!("nested deeper than {DEPTH_MAX} levels; flatten this part of the file"),
            ));
        }
        let (content, anchor) = match event {
            Event::Alias(id) => return self.alias(id, place),
            Event::Scalar(text, style, anchor, tag) => {
                let text_by_tag = tag_is_text(tag.as_deref(), &place)?;
                let plain = style == ScalarStyle::Plain && !text_by_tag;
                (Content::Scalar { text: text.into_owned(), plain }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                tag_is_text(tag.as_deref(), &place)?;
                (self.list(depth)?, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                tag_is_text(tag.as_deref(), &place)?;
                (self.map(depth)?, anchor)
            }
            _ => return Err(ImportError::at(place, "a value is missing here")),
        };
        let node = Node { place, content, anchored: anchor > 0 };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Content, ImportError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd | Event::StreamEnd, _) => return Ok(Content::List(items)),
                (event, place) => items.push(self.node(event, place, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Content, ImportError> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut merged: Vec<(String, Node)> = Vec::new();
        loop {
            let (event, place) = self.next()?;
            if matches!(event, Event::MappingEnd | Event::StreamEnd) {
                break;
            }
            let line = place.line;
            let key = match self.node(event, place.clone(), depth + 1)?.content {
                Content::Scalar { text, .. } => text,
                Content::List(_) | Content::Map(_) => {
                    return Err(ImportError::at(
                        place,
                        "a key here is a list or a map; keys are plain words",
                    ));
                }
            };
            let (event, value_place) = self.next()?;
            let value = self.node(event, value_place, depth + 1)?;
            if key == "<<" {
                merged.append(&mut merge_sources(value)?);
            } else if let Some(i) = entries.iter().position(|(other, _)| *other == key) {
                // PyYAML silently takes the last one.
                self.repeated.push(RepeatedKey { key: key.clone(), line });
                entries.remove(i);
                entries.push((key, value));
            } else {
                entries.push((key, value));
            }
        }
        for (key, value) in merged {
            if !entries.iter().any(|(other, _)| *other == key) {
                entries.push((key, value));
            }
        }
        Ok(Content::Map(entries))
    }

    fn alias(&mut self, id: usize, place: Place) -> Result<Node, ImportError> {
        let Some(node) = self.anchors.get(&id).cloned() else {
            return Err(ImportError::at(place, "this alias (*name) is inside the very value that it names"));
        };
        self.count(size(&node), &place)?;
        Ok(node)
    }

    fn count(&mut self, nodes: usize, place: &Place) -> Result<(), ImportError> {
        self.nodes += nodes;
        if self.nodes <= NODES_MAX {
            return Ok(());
        }
        Err(ImportError::at(
            place.clone(),
            format!(
                "more than {NODES_MAX} values, each alias (*name) counted as a copy; write a shorter file"
            ),
        ))
    }
}

fn size(node: &Node) -> usize {
    1 + match &node.content {
        Content::Scalar { .. } => 0,
        Content::List(items) => items.iter().map(size).sum(),
        Content::Map(entries) => entries.iter().map(|(_, node)| size(node)).sum(),
    }
}

/// The entries that `<<:` brings in, from one map, or from several maps of which the first takes precedence.
fn merge_sources(value: Node) -> Result<Vec<(String, Node)>, ImportError> {
    let error = value.error("<<: merges a map or a list of maps, such as <<: *defaults");
    match value.content {
        Content::Map(entries) => Ok(entries),
        Content::List(items) => {
            let mut entries = Vec::new();
            for item in items {
                match item.content {
                    Content::Map(mut more) => entries.append(&mut more),
                    Content::Scalar { .. } | Content::List(_) => return Err(error),
                }
            }
            Ok(entries)
        }
        Content::Scalar { .. } => Err(error),
    }
}

/// True if a tag says that the value is text. Only YAML's own tags are known.
fn tag_is_text(tag: Option<&Tag>, place: &Place) -> Result<bool, ImportError> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() => Ok(tag.suffix == "str"),
        Some(tag) => Err(ImportError::at(
            place.clone(),
            format!("the tag {tag} is not known to LiteLLM either; remove it"),
        )),
    }
}

fn syntax_error(error: &ScanError, place: Place) -> ImportError {
    let what = error.info();
    let what = if what == "invalid indentation in quoted scalar" {
        "a quote is not closed, or its text is indented less than its key"
    } else {
        what
    };
    let hint = if what.contains("tab") {
        "indent with spaces"
    } else if what.contains("anchor") {
        "define it with &name before it is used"
    } else {
        "look at the indentation, quotes and colons here and in the line above"
    };
    ImportError::at(place, format!("not YAML: {what}; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Node, ImportError> {
        super::parse(text, None).map(|(root, _)| root)
    }

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn braces_and_brackets_may_close_at_the_margin() {
        for text in [
            "a: {\n  b: 1\n}\nc: [\n1,\n2\n]\n",
            "x:\n  - a: {\n      b: 1\n  }\n    c: [\n 1,\n2 ]\n",
            "[\n{\n\"a\":\n{\n\"b\": 1},\n\"c\": [1, 2]\n}\n]",
        ] {
            let root = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let mut map = root.get("x").unwrap_or(&root).clone();
            if let Content::List(items) = map.content {
                map = items[0].clone();
            }
            assert_eq!(map.get("a").unwrap().get("b").unwrap().scalar(), Some(Scalar::Int(1)), "{text}");
            assert!(matches!(&map.get("c").unwrap().content, Content::List(items) if items.len() == 2));
        }
        assert!(error("a:\n    - b\n  - c\n").contains("line 3"), "{}", error("a:\n    - b\n  - c\n"));
        let long = format!("a:\n  b: [\n{}]\n", "x,\n".repeat(5000));
        assert!(error(&long).contains("invalid indentation"), "{}", error(&long));
    }

    #[test]
    fn the_last_of_two_equal_keys_counts() {
        let (root, repeated) = super::parse("a: 1\nb: 2\na: 3\n", None).unwrap();
        assert_eq!(root.get("a").unwrap().scalar(), Some(Scalar::Int(3)));
        assert_eq!((repeated.len(), repeated[0].key.as_str(), repeated[0].line), (1, "a", 3));
    }

    #[test]
    fn scalars_are_read_as_pyyaml_reads_them() {
        for (text, expected) in [
            ("none", Scalar::Text("none")),
            ("null", Scalar::Null),
            ("~", Scalar::Null),
            ("yes", Scalar::Bool(true)),
            ("Off", Scalar::Bool(false)),
            ("1_000", Scalar::Int(1000)),
            ("-7", Scalar::Int(-7)),
            ("0x1F", Scalar::Int(31)),
            ("0.7", Scalar::Float(0.7)),
            (".5", Scalar::Float(0.5)),
            ("1e3", Scalar::Float(1000.0)),
            ("-", Scalar::Text("-")),
            ("1.2.3.4", Scalar::Text("1.2.3.4")),
            ("infinity", Scalar::Text("infinity")),
        ] {
            assert_eq!(plain(text), expected, "{text}");
        }
        let quoted = parse("a: '1'").unwrap();
        assert_eq!(quoted.get("a").unwrap().scalar(), Some(Scalar::Text("1")));
        assert_eq!(parse("a: !!str 1").unwrap().get("a").unwrap().scalar(), Some(Scalar::Text("1")));
    }

    #[test]
    fn anchors_and_merges_are_written_out() {
        let root = parse("d: &d {a: 1, b: 2}\nx:\n  <<: *d\n  b: 3\n").unwrap();
        let x = root.get("x").unwrap();
        assert_eq!(x.get("a").unwrap().scalar(), Some(Scalar::Int(1)));
        assert_eq!(x.get("b").unwrap().scalar(), Some(Scalar::Int(3)));
    }

    #[test]
    fn bombs_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let items = vec![format!("*a{}", i - 1); 10].join(", ");
            bomb.push_str(&format!("a{i}: &a{i} [{items}]\n"));
        }
        assert!(error(&bomb).contains("more than 20000 values"), "{}", error(&bomb));
        for deep in ["[".repeat(SIZE_MAX), "- ".repeat(SIZE_MAX / 2), "{a: ".repeat(SIZE_MAX / 4)] {
            assert!(parse(&deep).is_err());
        }
        assert!(error(&"x".repeat(SIZE_MAX + 1)).contains("the limit is"));
        assert!(error("a: &a [*a]").contains("alias"), "{}", error("a: &a [*a]"));
    }

    #[test]
    fn mistakes_are_reported_with_their_place() {
        assert!(error("a:\n\t- b\n").starts_with("line 2, "), "{}", error("a:\n\t- b\n"));
        assert!(error("a: 1\n---\nb: 1\n").starts_with("line 2, column 1: a second document"));
        assert!(error("a: !secret x").contains("the tag !secret"));
        assert!(error("a: *nowhere").contains("&name"), "{}", error("a: *nowhere"));
        assert!(error("").contains("empty"));
        assert!(error("? [a]\n: b\n").contains("keys are plain words"));
    }
}
