//! The automaton of Aho and Corasick: finds any of many texts in another one, reading each byte of it once.
//!
//! A state stands for a beginning that some of the texts share; the first state stands for the empty beginning. If a
//! state has no transition for a byte, its `shorter` state may have one: the state for the longest proper suffix of the
//! beginning that is a beginning itself. This module knows bytes only, nothing of answers.

/// Marks a missing state, and a missing text.
const NONE: u32 = u32::MAX;

/// How far the searched text matches: the number of a state. The default is the state in which nothing has matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position(u32);

/// The states and the transitions between them. They take about 24 bytes for each byte of the texts.
#[derive(Clone, Debug)]
pub(super) struct Automaton {
    /// Sorted by the length of their beginnings. Those of one parent stand side by side, sorted by their last byte.
    states: Vec<AutomatonState>,
    /// For each byte, whether a text begins with it.
    first: [bool; 256],
}

#[derive(Clone, Copy, Debug)]
struct AutomatonState {
    /// The last byte of the state's beginning.
    byte: u8,
    /// The number of states that add one byte to this one's beginning, and the first of them.
    children_count: u16,
    children: u32,
    shorter: u32,
    /// The longest text that ends here, by its place in the list: the state's own text, or else that of its `shorter`
    /// state.
    longest: u32,
    /// The length of the state's beginning in bytes.
    length: u32,
}

impl Automaton {
    /// The automaton for `texts`, which must be sorted, without duplicates and without empty texts.
    pub(super) fn new(texts: &[String]) -> Self {
        let root = AutomatonState {
            byte: 0,
            children_count: 0,
            children: NONE,
            shorter: 0,
            longest: NONE,
            length: 0,
        };
        let mut automaton = Automaton { states: vec![root], first: [false; 256] };
        // For each state, the range of texts that share its beginning. They are neighbours, because the list is sorted.
        let mut ranges: Vec<_> = std::iter::once(0..texts.len()).collect();
        let mut parent = 0;
        while let Some(range) = ranges.get(parent).cloned() {
            automaton.add_children(parent, texts, range, &mut ranges);
            parent += 1;
        }
        automaton.link();
        for text in texts {
            if let Some(place) =
                text.bytes().next().and_then(|byte| automaton.first.get_mut(usize::from(byte)))
            {
                *place = true;
            }
        }
        automaton
    }

    /// Adds a state for each byte that continues the beginning of `parent`. The texts in `range` share that beginning.
    fn add_children(
        &mut self,
        parent: usize,
        texts: &[String],
        range: std::ops::Range<usize>,
        ranges: &mut Vec<std::ops::Range<usize>>,
    ) {
        let Some(AutomatonState { length, .. }) = self.states.get(parent).copied() else { return };
        let byte_of = |text: &String| text.as_bytes().get(length as usize).copied();
        let first_child = self.states.len();
        let mut at = range.start;
        while let Some(text) = texts.get(at).filter(|_| at < range.end) {
            // The shortest text stands first, and may be the beginning itself, which has no next byte.
            let Some(byte) = byte_of(text) else {
                at += 1;
                continue;
            };
            let others = texts.get(at..range.end).unwrap_or_default();
            let count = others.iter().take_while(|text| byte_of(text) == Some(byte)).count();
            let is_whole = text.len() == length as usize + 1;
            self.states.push(AutomatonState {
                byte,
                children_count: 0,
                children: NONE,
                shorter: 0,
                longest: if is_whole { number(at) } else { NONE },
                length: length + 1,
            });
            ranges.push(at..at + count);
            at += count;
        }
        let count = self.states.len() - first_child;
        if let Some(state) = self.states.get_mut(parent) {
            state.children = number(first_child);
            state.children_count = u16::try_from(count).unwrap_or(u16::MAX);
        }
    }

    /// Finds the `shorter` state of each state. Those of shorter beginnings are already known by then.
    fn link(&mut self) {
        for parent in 0..self.states.len() {
            let Some(AutomatonState { children, children_count, shorter, .. }) =
                self.states.get(parent).copied()
            else {
                return;
            };
            for child in children..children.saturating_add(u32::from(children_count)) {
                let Some(byte) = self.state(child).map(|state| state.byte) else { continue };
                let found = if parent == 0 { 0 } else { self.step(shorter, byte) };
                let inherited = self.state(found).map_or(NONE, |state| state.longest);
                if let Some(state) = self.states.get_mut(child as usize) {
                    state.shorter = found;
                    if state.longest == NONE {
                        state.longest = inherited;
                    }
                }
            }
        }
    }

    fn state(&self, number: u32) -> Option<&AutomatonState> {
        self.states.get(number as usize)
    }

    /// The state after `byte`. Each failed try shortens the match, so the number of all tries is linear in the text's
    /// length.
    fn step(&self, mut number: u32, byte: u8) -> u32 {
        loop {
            if let Some(child) = self.child(number, byte) {
                return child;
            }
            if number == 0 {
                return 0;
            }
            number = self.state(number).map_or(0, |state| state.shorter);
        }
    }

    fn child(&self, number: u32, byte: u8) -> Option<u32> {
        let state = self.state(number)?;
        let first = state.children as usize;
        let children = self.states.get(first..first.checked_add(usize::from(state.children_count))?)?;
        let at = children.binary_search_by_key(&byte, |child| child.byte).ok()?;
        Some(state.children + u32::try_from(at).ok()?)
    }

    /// Whether any byte of `text` is one that a searched text begins with.
    pub(super) fn begins_in(&self, text: &str) -> bool {
        text.bytes().any(|byte| self.is_first(byte))
    }

    fn is_first(&self, byte: u8) -> bool {
        self.first.get(usize::from(byte)).is_some_and(|is_first| *is_first)
    }

    /// Reads `text` until one of the searched texts is complete. Returns the number of bytes of `text` that were read
    /// and the place of the text that was found, the longest if several end there.
    pub(super) fn read(&self, position: &mut Position, text: &str) -> Option<(usize, usize)> {
        for (at, byte) in text.bytes().enumerate() {
            if position.0 == 0 && !self.is_first(byte) {
                continue;
            }
            position.0 = self.step(position.0, byte);
            let longest = self.state(position.0).map_or(NONE, |state| state.longest);
            if longest != NONE {
                return Some((at + 1, longest as usize));
            }
        }
        None
    }

    /// How many bytes at the end of the text read so far are the beginning of one of the searched texts.
    pub(super) fn matched(&self, position: Position) -> usize {
        self.state(position.0).map_or(0, |state| state.length as usize)
    }
}

/// A place in a list as a number of 32 bits. The lists are at most as long as all texts together, which is far below
/// the limit.
fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(NONE)
}
