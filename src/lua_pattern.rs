//! Lua's string patterns, in a matcher that a time limit can stop.
//!
//! Lua's own matcher is C code, which runs no debug hook, so the time limit of a hook cannot stop it. A limit on the
//! length of its input would not do either: with Lua 5.4.4 on one core, `("a"):rep(n):find(pattern)` takes
//!
//! | n | pattern | seconds |
//! |--:|---|--:|
//! | 10,000 | `.-b` | 0.25 |
//! | 1,000 | `.-.-b` | 0.85 |
//! | 300 | `.-.-.-b` | 1.9 |
//! | 200 | `.-.-.-.-b` | 16 |
//!
//! while a hook has 0.05 s: texts of 200 bytes, or patterns with two repetitions, would have to be refused. So this
//! matcher does the same as Lua's (`lstrlib.c` of Lua 5.4, function by function) and checks the limits every few
//! thousand steps. `prelude.lua` builds `find`, `match`, `gmatch` and `gsub` on it, and `never_to` uses it. It works on bytes only.
//!
//! Pure.

/// The deepest recursion of a match, as in Lua.
const DEPTH_MAX: usize = 200;
/// The most captures of a pattern, as in Lua.
const CAPTURES_MAX: usize = 32;
/// The number of steps between two checks of the limits: about 10 us.
const STEPS_PER_CHECK: usize = 4096;

/// The number of levels of recursion between two checks of the limits, since the stack has a limit as well.
const DEPTH_PER_CHECK: usize = 16;

const ESCAPE: u8 = b'%';

/// True if nothing in the pattern is special to `string.find`, which then looks for it as it is.
pub fn is_plain(pattern: &[u8]) -> bool {
    !pattern.iter().any(|byte| b"^$*+?.([%-".contains(byte))
}

/// The text with which each match of a pattern begins, as far as it stands in the pattern as it is. Where it does not occur,
/// no search is needed.
pub fn literal_beginning(pattern: &[u8]) -> &[u8] {
    let size = pattern.iter().take_while(|byte| !b"^$*+?.([%-)".contains(byte)).count();
    // The last one may be left out, or not be there.
    let is_optional = matches!(pattern.get(size), Some(b'*' | b'?' | b'-'));
    pattern.get(..size.saturating_sub(usize::from(is_optional))).unwrap_or_default()
}

/// Checks the form of a pattern: a search finds a mistake only when it gets there.
///
/// # Errors
/// The pattern is malformed; the text says why.
pub fn check_pattern(pattern: &[u8]) -> Result<(), String> {
    let search = PatternSearch { text: b"", pattern, anchors: true, not_ending_at: None, go_on: &|| Ok(()) };
    let matcher = Matcher { search: &search, captures: Vec::new(), depth: 0, steps: 0 };
    // For each capture whether it is closed.
    let mut captures: Vec<bool> = Vec::new();
    let mut p = usize::from(pattern.first() == Some(&b'^'));
    while let Some(head) = matcher.pattern(p) {
        match (head, matcher.pattern(p + 1)) {
            (b'(', next) => {
                captures.push(next == Some(b')'));
                p += if next == Some(b')') { 2 } else { 1 };
            }
            (b')', _) => {
                let open = captures.iter_mut().rfind(|is_closed| !**is_closed);
                *open.ok_or("invalid pattern capture")? = true;
                p += 1;
            }
            (ESCAPE, Some(b'b')) if matcher.pattern(p + 3).is_none() => return Err(NO_ARGUMENTS.to_owned()),
            (ESCAPE, Some(b'b')) => p += 4,
            (ESCAPE, Some(b'f')) if matcher.pattern(p + 2) != Some(b'[') => return Err(NO_SET.to_owned()),
            (ESCAPE, Some(b'f')) => p = matcher.class_end(p + 2)?,
            (ESCAPE, Some(digit)) if digit.is_ascii_digit() => {
                let level = usize::from(digit).checked_sub(usize::from(b'1'));
                if level.and_then(|level| captures.get(level)) != Some(&true) {
                    return Err(format!("invalid capture index %{}", char::from(digit)));
                }
                p += 2;
            }
            _ => {
                p = matcher.class_end(p)?;
                p += usize::from(matches!(matcher.pattern(p), Some(b'?' | b'+' | b'*' | b'-')));
            }
        }
    }
    match captures.contains(&false) {
        true => Err("unfinished capture".to_owned()),
        false if captures.len() > CAPTURES_MAX => Err("too many captures".to_owned()),
        false => Ok(()),
    }
}

const NO_ARGUMENTS: &str = "malformed pattern (missing arguments to '%b')";
const NO_SET: &str = "missing '[' after '%f' in pattern";

/// One capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// A capture whose `(` was reached and whose `)` was not: its beginning, from 0.
    Open(usize),
    /// A position capture, `()`: the position, from 0.
    Position(usize),
    /// A complete capture: its beginning and its end, from 0.
    Range(usize, usize),
}

/// The match that a search found: its beginning and its end, from 0, and the captures.
#[derive(Debug, PartialEq, Eq)]
pub struct Match {
    /// Its beginning.
    pub start: usize,
    /// Its end.
    pub end: usize,
    /// Its captures, in their order.
    pub captures: Vec<Capture>,
}

/// One search.
#[allow(missing_debug_implementations, reason = "it holds a function")]
pub struct PatternSearch<'s> {
    /// The text that is searched.
    pub text: &'s [u8],
    /// The pattern.
    pub pattern: &'s [u8],
    /// True if `^` at the beginning of the pattern ties the match to `start`.
    pub anchors: bool,
    /// The end of the match before. A match that ends there too does not count.
    pub not_ending_at: Option<usize>,
    /// Checks the limits: fails if the time is over, or if the stack has grown too deep.
    pub go_on: &'s dyn Fn() -> Result<(), String>,
}

impl PatternSearch<'_> {
    /// The first match that begins at `start` or later.
    ///
    /// # Errors
    /// The pattern is malformed, the match nests too deep, or a limit was reached.
    pub fn run(&self, start: usize) -> Result<Option<Match>, String> {
        let anchored = self.anchors && self.pattern.first() == Some(&b'^');
        let first = usize::from(anchored);
        let mut matcher = Matcher { search: self, captures: Vec::new(), depth: 0, steps: 0 };
        for start in start..=self.text.len() {
            matcher.captures.clear();
            matcher.depth = 0;
            if let Some(end) = matcher.at(start, first)?
                && self.not_ending_at != Some(end)
            {
                if matcher.captures.iter().any(|capture| matches!(capture, Capture::Open(_))) {
                    return Err("unfinished capture".to_owned());
                }
                return Ok(Some(Match { start, end, captures: matcher.captures }));
            }
            if anchored {
                break;
            }
        }
        Ok(None)
    }
}

struct Matcher<'m> {
    search: &'m PatternSearch<'m>,
    captures: Vec<Capture>,
    depth: usize,
    steps: usize,
}

type MatchResult = Result<Option<usize>, String>;

impl Matcher<'_> {
    fn text(&self, s: usize) -> Option<u8> {
        self.search.text.get(s).copied()
    }

    fn pattern(&self, p: usize) -> Option<u8> {
        self.search.pattern.get(p).copied()
    }

    /// Counts work: one step for each byte of the text or of a set that is looked at.
    fn step(&mut self, steps: usize) -> Result<(), String> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps < STEPS_PER_CHECK {
            return Ok(());
        }
        self.steps = 0;
        (self.search.go_on)()
    }

    /// Matches the pattern from `p` on against the text at `s`; returns the end of the match.
    fn at(&mut self, s: usize, p: usize) -> MatchResult {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("pattern too complex".to_owned());
        }
        if self.depth.is_multiple_of(DEPTH_PER_CHECK) {
            (self.search.go_on)()?;
        }
        let outcome = self.go(s, p);
        self.depth -= 1;
        outcome
    }

    fn go(&mut self, mut s: usize, mut p: usize) -> MatchResult {
        loop {
            self.step(1)?;
            let Some(head) = self.pattern(p) else { return Ok(Some(s)) };
            match (head, self.pattern(p + 1)) {
                (b'(', Some(b')')) => return self.open(s, p + 2, Capture::Position(s)),
                (b'(', _) => return self.open(s, p + 1, Capture::Open(s)),
                (b')', _) => return self.close(s, p + 1),
                (b'$', None) => return Ok((s == self.search.text.len()).then_some(s)),
                (ESCAPE, Some(b'b')) => match self.balance(s, p + 2)? {
                    Some(end) => (s, p) = (end, p + 4),
                    None => return Ok(None),
                },
                (ESCAPE, Some(b'f')) => match self.frontier(s, p + 2)? {
                    Some(after) => p = after,
                    None => return Ok(None),
                },
                (ESCAPE, Some(digit)) if digit.is_ascii_digit() => match self.back_reference(s, digit)? {
                    Some(end) => (s, p) = (end, p + 2),
                    None => return Ok(None),
                },
                _ => {
                    let after = self.class_end(p)?;
                    // The end of a set was looked for, and its characters are compared with one of the text.
                    self.step(after - p)?;
                    match self.pattern(after) {
                        Some(b'?') => {
                            if self.single(s, p, after)
                                && let Some(end) = self.at(s + 1, after + 1)?
                            {
                                return Ok(Some(end));
                            }
                            p = after + 1;
                        }
                        Some(b'+') if !self.single(s, p, after) => return Ok(None),
                        Some(b'+') => return self.most(s + 1, p, after),
                        Some(b'*') => return self.most(s, p, after),
                        Some(b'-') => return self.fewest(s, p, after),
                        _ if !self.single(s, p, after) => return Ok(None),
                        _ => (s, p) = (s + 1, after),
                    }
                }
            }
        }
    }

    /// Matches `*`, and what follows the first character of `+`: tries as many repetitions as possible, then fewer.
    fn most(&mut self, s: usize, p: usize, after: usize) -> MatchResult {
        let mut count = 0;
        while self.single(s + count, p, after) {
            self.step(after - p)?;
            count += 1;
        }
        loop {
            if let Some(end) = self.at(s + count, after + 1)? {
                return Ok(Some(end));
            }
            if count == 0 {
                return Ok(None);
            }
            count -= 1;
        }
    }

    /// Matches `-`: tries no repetition, then more.
    fn fewest(&mut self, mut s: usize, p: usize, after: usize) -> MatchResult {
        loop {
            if let Some(end) = self.at(s, after + 1)? {
                return Ok(Some(end));
            }
            self.step(after - p)?;
            if !self.single(s, p, after) {
                return Ok(None);
            }
            s += 1;
        }
    }

    fn open(&mut self, s: usize, p: usize, capture: Capture) -> MatchResult {
        if self.captures.len() >= CAPTURES_MAX {
            return Err("too many captures".to_owned());
        }
        self.captures.push(capture);
        let level = self.captures.len();
        let end = self.at(s, p)?;
        if end.is_none() {
            self.captures.truncate(level - 1);
        }
        Ok(end)
    }

    fn close(&mut self, s: usize, p: usize) -> MatchResult {
        let open = self.captures.iter().rposition(|capture| matches!(capture, Capture::Open(_)));
        let Some((level, slot)) = open.and_then(|level| Some((level, self.captures.get_mut(level)?))) else {
            return Err("invalid pattern capture".to_owned());
        };
        let Capture::Open(start) = *slot else { return Ok(None) };
        *slot = Capture::Range(start, s);
        let end = self.at(s, p)?;
        if end.is_none()
            && let Some(slot) = self.captures.get_mut(level)
        {
            *slot = Capture::Open(start);
        }
        Ok(end)
    }

    /// Matches `%bxy`: a text that begins with `x`, ends with `y`, and has as many of each.
    fn balance(&mut self, s: usize, p: usize) -> MatchResult {
        let (Some(begin), Some(finish)) = (self.pattern(p), self.pattern(p + 1)) else {
            return Err(NO_ARGUMENTS.to_owned());
        };
        if self.text(s) != Some(begin) {
            return Ok(None);
        }
        let mut level = 1usize;
        let mut at = s + 1;
        while let Some(byte) = self.text(at) {
            self.step(1)?;
            at += 1;
            if byte == finish {
                level -= 1;
                if level == 0 {
                    return Ok(Some(at));
                }
            } else if byte == begin {
                level += 1;
            }
        }
        Ok(None)
    }

    /// Matches `%f[set]`; returns the index in the pattern after it.
    fn frontier(&mut self, s: usize, p: usize) -> MatchResult {
        if self.pattern(p) != Some(b'[') {
            return Err(NO_SET.to_owned());
        }
        let after = self.class_end(p)?;
        self.step(after - p)?;
        let before = s.checked_sub(1).and_then(|s| self.text(s)).unwrap_or(0);
        let here = self.text(s).unwrap_or(0);
        let matches = !self.in_set(before, p, after) && self.in_set(here, p, after);
        Ok(matches.then_some(after))
    }

    fn back_reference(&mut self, s: usize, digit: u8) -> MatchResult {
        let level = usize::from(digit).checked_sub(usize::from(b'1'));
        let Some(Capture::Range(start, end)) = level.and_then(|level| self.captures.get(level)).copied()
        else {
            return Err(format!("invalid capture index %{}", char::from(digit)));
        };
        self.step(end.saturating_sub(start))?;
        let captured = self.search.text.get(start..end).unwrap_or_default();
        let rest = self.search.text.get(s..).unwrap_or_default();
        Ok(rest.starts_with(captured).then_some(s + captured.len()))
    }

    /// The end of the single-character class at `p`.
    fn class_end(&self, p: usize) -> Result<usize, String> {
        match self.pattern(p) {
            Some(ESCAPE) if self.pattern(p + 1).is_none() => {
                Err("malformed pattern (ends with '%')".to_owned())
            }
            Some(ESCAPE) => Ok(p + 2),
            Some(b'[') => {
                let mut at = p + 1 + usize::from(self.pattern(p + 1) == Some(b'^'));
                // The first character belongs to the set even if it is a `]`.
                loop {
                    let Some(byte) = self.pattern(at) else {
                        return Err("malformed pattern (missing ']')".to_owned());
                    };
                    at += if byte == ESCAPE { 2 } else { 1 };
                    if self.pattern(at) == Some(b']') {
                        return Ok(at + 1);
                    }
                }
            }
            _ => Ok(p + 1),
        }
    }

    /// True if the class from `p` to `after` matches the character at `s`.
    fn single(&self, s: usize, p: usize, after: usize) -> bool {
        let Some(byte) = self.text(s) else { return false };
        match self.pattern(p) {
            Some(b'.') => true,
            Some(ESCAPE) => self.pattern(p + 1).is_some_and(|class| in_class(byte, class)),
            Some(b'[') => self.in_set(byte, p, after),
            literal => literal == Some(byte),
        }
    }

    /// True if `byte` is in the set `[…]` from `p` to `after`.
    fn in_set(&self, byte: u8, p: usize, after: usize) -> bool {
        let negated = self.pattern(p + 1) == Some(b'^');
        let last = after - 1;
        let mut at = p + 1 + usize::from(negated);
        while at < last {
            let Some(low) = self.pattern(at) else { break };
            let high = self.pattern(at + 2).filter(|_| self.pattern(at + 1) == Some(b'-') && at + 2 < last);
            let (found, width) = match (low, high) {
                (ESCAPE, _) => (self.pattern(at + 1).is_some_and(|class| in_class(byte, class)), 2),
                (low, Some(high)) => ((low..=high).contains(&byte), 3),
                (low, None) => (low == byte, 1),
            };
            if found {
                return !negated;
            }
            at += width;
        }
        negated
    }
}

/// True if `byte` is in the class of a letter after `%`, as in `%a`; any other character matches itself.
fn in_class(byte: u8, class: u8) -> bool {
    let inside = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'g' => byte.is_ascii_graphic(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => byte.is_ascii_whitespace() || byte == 0x0b,
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    inside != class.is_ascii_uppercase()
}
