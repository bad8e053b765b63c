//! Strict reading of the owner's tables: every mistake is noted with the expected form, and reading goes on.

use std::fmt;

use mlua::{Table, Value as LuaValue};

use super::nearest;

/// One mistake in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file as it was given.
    pub file: String,
    /// The line, if it is known.
    pub line: Option<u32>,
    /// The mistake and the expected form.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// The mistakes of one file so far.
pub(super) struct Mistakes<'s> {
    file: &'s str,
    text: &'s str,
    pub(super) list: Vec<Mistake>,
}

impl<'s> Mistakes<'s> {
    /// An empty list for this file with this text.
    pub(super) fn new(file: &'s str, text: &'s str) -> Self {
        Mistakes { file, text, list: Vec::new() }
    }

    /// Notes a mistake. Lua does not report the line of a table entry; if one of `words` stands on exactly one line,
    /// that line is used.
    pub(super) fn add(&mut self, words: &[&str], message: impl Into<String>) {
        let line = words.iter().find_map(|word| only_line_of(self.text, word));
        self.list.push(Mistake { file: self.file.to_owned(), line, message: message.into() });
    }

    /// Notes a mistake at a known line.
    pub(super) fn add_at(&mut self, line: Option<u32>, message: impl Into<String>) {
        self.list.push(Mistake { file: self.file.to_owned(), line, message: message.into() });
    }
}

/// The number of the line that has `word` as a whole word, if exactly one line has it. Comments count too, so a word
/// that a comment repeats gives no line.
fn only_line_of(text: &str, word: &str) -> Option<u32> {
    let has_word = |line: &str| {
        line.match_indices(word).any(|(start, _)| {
            let inner = |c: char| c.is_alphanumeric() || c == '_';
            let before = line.get(..start).and_then(|s| s.chars().next_back());
            let after = line.get(start + word.len()..).and_then(|s| s.chars().next());
            !before.is_some_and(inner) && !after.is_some_and(inner)
        })
    };
    let mut lines = (1u32..).zip(text.lines()).filter(|(_, line)| !word.is_empty() && has_word(line));
    let (number, _) = lines.next()?;
    lines.next().is_none().then_some(number)
}

/// One table of the owner's, and its name in messages.
pub(super) struct TableReader<'t> {
    table: &'t Table,
    /// The table's path, such as `upstreams.spark`; empty for the file's own table.
    path: String,
    /// A word of the table's first line, from which its line is found.
    landmark: String,
}

impl<'t> TableReader<'t> {
    /// A table under this path. `landmark` is a word that stands near it in the file.
    pub(super) fn new(table: &'t Table, path: impl Into<String>, landmark: impl Into<String>) -> Self {
        TableReader { table, path: path.into(), landmark: landmark.into() }
    }

    /// The path of a key, for messages.
    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes a mistake at `key`.
    pub(super) fn wrong(&self, key: &str, what: &str, mistakes: &mut Mistakes<'_>) {
        mistakes.add(&[key, &self.landmark], format!("{}: {what}", self.path_of(key)));
    }

    /// Notes that `key` has an unexpected value.
    fn expected(&self, key: &str, what: &str, got: &LuaValue, mistakes: &mut Mistakes<'_>) {
        self.wrong(key, &format!("expected {what}, got {}", describe(got)), mistakes);
    }

    /// The value of `key`.
    pub(super) fn value(&self, key: &str) -> LuaValue {
        self.table.raw_get(key).unwrap_or(LuaValue::Nil)
    }

    /// Reads a string. `what` describes it: `a string such as "x"`.
    pub(super) fn text(&self, key: &str, what: &str, mistakes: &mut Mistakes<'_>) -> Option<String> {
        match self.value(key) {
            LuaValue::Nil => None,
            LuaValue::String(text) => Some(text.to_string_lossy()),
            other => {
                self.expected(key, what, &other, mistakes);
                None
            }
        }
    }

    /// Reads a boolean.
    pub(super) fn boolean(&self, key: &str, mistakes: &mut Mistakes<'_>) -> Option<bool> {
        match self.value(key) {
            LuaValue::Nil => None,
            LuaValue::Boolean(b) => Some(b),
            other => {
                self.expected(key, "true or false", &other, mistakes);
                None
            }
        }
    }

    /// Reads a whole number from 1 to `max`.
    pub(super) fn count(&self, key: &str, max: u64, mistakes: &mut Mistakes<'_>) -> Option<u64> {
        let value = self.value(key);
        if value.is_nil() {
            return None;
        }
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked: integral and in range"
        )]
        let count = match value {
            LuaValue::Integer(n) => u64::try_from(n).ok(),
            LuaValue::Number(n) if n.fract() == 0.0 && (0.0..1e15).contains(&n) => Some(n as u64),
            _ => None,
        };
        let count = count.filter(|n| (1..=max).contains(n));
        if count.is_none() {
            self.expected(key, &format!("a whole number from 1 to {max}"), &value, mistakes);
        }
        count
    }

    /// Reads one of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(T, &str)],
        mistakes: &mut Mistakes<'_>,
    ) -> Option<T> {
        let value = self.value(key);
        if value.is_nil() {
            return None;
        }
        let word = value.as_string().map(|text| text.to_string_lossy());
        let chosen =
            choices.iter().find(|(_, name)| word.as_deref() == Some(*name)).map(|(choice, _)| *choice);
        if chosen.is_none() {
            let names: Vec<String> = choices.iter().map(|(_, name)| format!("\"{name}\"")).collect();
            self.expected(key, &format!("one of {}", names.join(", ")), &value, mistakes);
        }
        chosen
    }

    /// Reads a table.
    pub(super) fn table(&self, key: &str, what: &str, mistakes: &mut Mistakes<'_>) -> Option<Table> {
        match self.value(key) {
            LuaValue::Nil => None,
            LuaValue::Table(table) => Some(table),
            other => {
                self.expected(key, what, &other, mistakes);
                None
            }
        }
    }

    /// Reads a list of words: letters, digits, `_`, `-`, `+` and `.`.
    pub(super) fn words(&self, key: &str, what: &str, mistakes: &mut Mistakes<'_>) -> Option<Vec<String>> {
        let table = self.table(key, what, mistakes)?;
        let is_word = |word: &String| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-+.".contains(c))
        };
        let mut words = Vec::new();
        for item in table.sequence_values::<LuaValue>() {
            let item = item.unwrap_or(LuaValue::Nil);
            match item.as_string().map(|text| text.to_string_lossy()).filter(is_word) {
                Some(word) => words.push(word),
                None => self.expected(key, what, &item, mistakes),
            }
        }
        if words.len() < keys(&table).len() && table.raw_len() == words.len() {
            self.wrong(key, &format!("expected {what}, got other keys"), mistakes);
        }
        Some(words)
    }

    /// Notes every key that is not in `known`. `positions` is the number of list items that the table may have.
    pub(super) fn check_keys(&self, known: &[&str], positions: usize, mistakes: &mut Mistakes<'_>) {
        let place = if self.path.is_empty() { String::new() } else { format!(" in {}", self.path) };
        for key in keys(self.table) {
            match &key {
                LuaValue::String(name) => {
                    let name = name.to_string_lossy();
                    if !known.contains(&name.as_str()) {
                        let message = nearest::unknown(&format!("unknown key{place}"), &name, known);
                        mistakes.add(&[&name, &self.landmark], message);
                    }
                }
                LuaValue::Integer(n) if usize::try_from(*n).is_ok_and(|n| (1..=positions).contains(&n)) => {}
                other => mistakes.add(
                    &[&self.landmark],
                    format!("unexpected item [{}]{place}: it has named keys only", describe(other)),
                ),
            }
        }
    }
}

/// The keys of a table in an order that is always the same: numbers first, then names.
pub(super) fn keys(table: &Table) -> Vec<LuaValue> {
    let mut keys: Vec<LuaValue> =
        table.pairs::<LuaValue, LuaValue>().filter_map(Result::ok).map(|(key, _)| key).collect();
    keys.sort_by_cached_key(|key| match key {
        LuaValue::Integer(n) => (0, *n, String::new()),
        LuaValue::String(name) => (1, 0, name.to_string_lossy()),
        other => (2, 0, other.type_name().to_owned()),
    });
    keys
}

/// True for a table with at least one item, whose items are numbered from 1 without gaps, and without other keys.
pub(super) fn is_list(table: &Table) -> bool {
    let keys = keys(table);
    !keys.is_empty() && keys.iter().enumerate().all(|(i, key)| key.as_usize() == Some(i + 1))
}

/// The description of a value in a message: `a number`, `the string "x"`.
pub(super) fn describe(value: &LuaValue) -> String {
    const QUOTED_CHARS_MAX: usize = 60;
    match value {
        LuaValue::Nil => "nothing".to_owned(),
        LuaValue::Integer(n) => format!("the number {n}"),
        LuaValue::Number(n) => format!("the number {n}"),
        LuaValue::Boolean(b) => b.to_string(),
        LuaValue::String(text) => {
            let text: String = text.to_string_lossy().chars().take(QUOTED_CHARS_MAX).collect();
            format!("the string \"{text}\"")
        }
        other => format!("a {}", other.type_name()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_on_its_only_line() {
        let text = "a = 1\nurl = 2\nurls = 3\nb = a\n";
        assert_eq!(only_line_of(text, "url"), Some(2));
        assert_eq!(only_line_of(text, "urls"), Some(3));
        assert_eq!(only_line_of(text, "a"), None);
        assert_eq!(only_line_of(text, "zz"), None);
        assert_eq!(only_line_of(text, ""), None);
    }
}
