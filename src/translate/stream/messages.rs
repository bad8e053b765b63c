//! Messages in a stream: choices that have a `message` and no `delta`.
//!
//! Some servers repeat all the text so far in each of them, some send pieces.

/// The content of the messages so far.
#[derive(Debug, Default)]
pub(super) struct Messages {
    reasoning: String,
    text: String,
}

impl Messages {
    /// True if anything came in messages.
    pub(super) fn is_used(&self) -> bool {
        !self.reasoning.is_empty() || !self.text.is_empty()
    }

    /// The bytes that are held.
    pub(super) fn size(&self) -> usize {
        self.reasoning.len() + self.text.len()
    }

    /// The new parts of a message's reasoning and text.
    pub(super) fn news<'m>(&mut self, reasoning: &'m str, text: &'m str) -> (&'m str, &'m str) {
        (news(&mut self.reasoning, reasoning), news(&mut self.text, text))
    }
}

/// The part of `text` that goes beyond `so_far`, or all of it if it does not begin with that.
fn news<'m>(so_far: &mut String, text: &'m str) -> &'m str {
    let new = text.strip_prefix(so_far.as_str()).unwrap_or(text);
    so_far.push_str(new);
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_told() {
        for (texts, expected) in [
            (&["a", "ab", "abc", "abc"][..], "abc"),
            (&["one ", "two", "one two"], "one two"),
            (&["", "a", ""], "a"),
        ] {
            let mut messages = Messages::default();
            let told: String = texts.iter().map(|text| messages.news("", text).1).collect();
            assert_eq!(told, expected, "{texts:?}");
            assert!(messages.is_used());
        }
    }
}
